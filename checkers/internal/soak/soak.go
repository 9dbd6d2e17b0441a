// Package soak says how long the cross-checks of the checkers are: tests that compare the
// verdicts on random histories with those of another method.
package soak

import (
	"os"
	"strconv"
	"testing"
)

// Count returns how many histories a test looks at: usual, which a run in CI has time for, or
// what CAPSIZE_SOAK says; a million take some minutes.
func Count(t testing.TB, usual int) int {
	t.Helper()
	text := os.Getenv("CAPSIZE_SOAK")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("CAPSIZE_SOAK=%s: want a number of histories", text)
	}
	return n
}
