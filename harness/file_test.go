package harness

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAHistoryInAFileIsJudged(t *testing.T) {
	const write = "{:type :invoke, :f :write, :value 1, :process 0}\n{:type :ok, :f :write, :value 1, :process 0}\n"
	const read = "{:type :invoke, :f :read, :value nil, :process 1}\n{:type :ok, :f :read, :value %, :process 1}\n"
	ours := `{"capsize":"history","version":1}
{"index":0,"time":0,"process":0,"type":"invoke","f":"write","key":"x","value":1}
{"index":1,"time":1,"process":0,"type":"ok","f":"write","key":"x","value":1}
{"index":2,"time":2,"process":1,"type":"invoke","f":"read","key":"x"}
{"index":3,"time":3,"process":1,"type":"ok","f":"read","key":"x","value":2}
`
	add := strings.ReplaceAll(write, ":write", ":add") + strings.ReplaceAll(read, "%", "#{1}")
	for name, c := range map[string]struct {
		text, workload string
		status         Status
		says           string // of the error, or the headline
	}{
		"valid":           {write + strings.ReplaceAll(read, "%", "1"), "", StatusValid, "2 operations on 1 keys"},
		"invalid":         {write + strings.ReplaceAll(read, "%", "nil"), "", StatusInvalid, "read"},
		"ours":            {ours, "", StatusInvalid, "2"},
		"a set":           {add, "set", StatusValid, "2 operations"},
		"set or counter":  {add, "", StatusUsage, "--workload set or --workload counter"},
		"who knows":       {strings.ReplaceAll(write, ":write", ":jump"), "", StatusUsage, "(jump) do not tell"},
		"no such":         {write, "tetris", StatusUsage, "one of"},
		"no history":      {"hello", "", StatusFailed, "line 1"},
		"ours, but wrong": {ours + ours, "", StatusFailed, "history"},
	} {
		path := filepath.Join(t.TempDir(), "history")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		judgement, report, err := JudgeFile(context.Background(), path, c.workload)
		if c.status >= StatusFailed {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %q", name, err, c.says)
			}
			continue
		}
		if err != nil || judgement.Status != c.status || !strings.Contains(judgement.Headline, c.says) || report.Headline != judgement.Headline {
			t.Errorf("%s: %v: %+v", name, err, judgement)
		}
	}
}

func TestARunIsExported(t *testing.T) {
	dir := Directory(t.TempDir())
	if err := os.WriteFile(dir.History(), []byte(`{"capsize":"history","version":1}`+"\n"+`{"index":0,"time":0,"process":0,"type":"invoke","f":"write","key":"x","value":1}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "history.edn")
	if err := Export(dir, to); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(to); err != nil || !strings.Contains(string(data), `:f :write, :value ["x" 1]`) {
		t.Errorf("%v: %s", err, data)
	}
	if err := Export(dir, to); err == nil {
		t.Error("a file that is there was written over")
	}
}
