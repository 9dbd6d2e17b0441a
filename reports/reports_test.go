package reports

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func written(t *testing.T, write func(io.Writer, *Run) error, r *Run) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// To look at the pages: REPORT_PAGES=DIR go test ./reports -run Drawn
func TestRunsOfEveryVerdictAreDrawn(t *testing.T) {
	dir := os.Getenv("REPORT_PAGES")
	for name, r := range map[string]*Run{
		"valid": validRun(20_000), "small": invalidRun(900), "invalid": invalidRun(20_000), "unknown": unknownRun(20_000), "failed": failedRun(), "empty": {},
	} {
		page := written(t, WriteHTML, r)
		if dir == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkWriteHTML(b *testing.B) {
	for _, operations := range []int{20_000, 1_000_000} {
		r := invalidRun(operations)
		b.Run(fmt.Sprint(operations), func(b *testing.B) {
			for b.Loop() {
				if err := WriteHTML(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
