package harness

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"capsize/checkers"
	"capsize/histories"
)

func TestAViolationOutranksAHarnessFailureWhichOutranksUnknown(t *testing.T) {
	for _, c := range []struct {
		verdict checkers.Verdict
		failed  bool
		want    Status
	}{
		{checkers.Valid, false, StatusValid},
		{checkers.Unknown, false, StatusUnknown},
		{checkers.Invalid, false, StatusInvalid},
		{checkers.Valid, true, StatusFailed},
		{checkers.Unknown, true, StatusFailed},
		{checkers.Invalid, true, StatusInvalid},
	} {
		if got := statusOf(c.verdict, c.failed); got != c.want {
			t.Errorf("%s, harness failed %t: %s, want %s", c.verdict, c.failed, got, c.want)
		}
	}
}

func TestBytesReadBackAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]Bytes{"512MiB": 512 << 20, "2GiB": 2 << 30, "3 KiB": 3 << 10, "7B": 7} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q: %d, %v", text, b, err)
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(want.String())); err != nil || again != want {
			t.Errorf("%s: %d, %v", want, again, err)
		}
	}
	for _, text := range []string{"", "lots", "12", "-1GiB", "1.5GiB", "9999999999GiB"} {
		if err := new(Bytes).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestTwoRunsOfOneSecondGetTwoDirectoriesAndLatestIsTheNewer(t *testing.T) {
	runs := t.TempDir()
	now := time.Now()
	first, err := NewDirectory(runs, "a", now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := NewDirectory(runs, "a", now)
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Errorf("both runs got %s", first)
	}
	latest, err := filepath.EvalSymlinks(filepath.Join(runs, "latest"))
	if want, _ := filepath.EvalSymlinks(string(second)); err != nil || latest != want {
		t.Errorf("latest is %s, %v; want %s", latest, err, want)
	}
}

func TestLatestNeverReplacesAFileOfTheUser(t *testing.T) {
	runs := t.TempDir()
	mine := filepath.Join(runs, "latest")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewDirectory(runs, "a", time.Now()); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(mine); err != nil || string(data) != "mine" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestARunThatWasNotEndedIsKnownAsSuch(t *testing.T) {
	dir := Directory(t.TempDir())
	if err := (Facts{ID: "x", Nodes: []string{"n1"}}).Save(dir); err != nil {
		t.Fatal(err)
	}
	facts, err := LoadFacts(dir)
	if err != nil || !facts.Ended.IsZero() {
		t.Errorf("%+v, %v", facts, err)
	}
}

func TestBackoffGrowsWhileRefusedAndEndsWithSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backoff
		start := time.Now()
		for range 20 {
			b.after(t.Context(), histories.Fail)
		}
		if waited := time.Since(start); waited < time.Second || waited > 20*backoffMost {
			t.Errorf("20 refusals waited %s", waited)
		}
		start = time.Now()
		b.after(t.Context(), histories.OK)
		if waited := time.Since(start); waited > 0 {
			t.Errorf("after a success it waited %s", waited)
		}
	})
}
