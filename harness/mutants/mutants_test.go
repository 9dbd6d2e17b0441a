package mutants

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const sample = `Breaks: reads are answered without asking anybody
Source: etcd 0.4.1, Consul #54
Caught-by: linearizability
Workload: register
Nemesis: partition, pause

--- a/raftnode/raft/read.go
+++ b/raftnode/raft/read.go
@@ -1 +1 @@
-old
+new
`

func TestAMutantIsAHeaderAndAPatch(t *testing.T) {
	m, err := Parse("local-reads", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "local-reads" || !m.Promised() || len(m.Nemesis) != 2 || m.Nemesis[1] != "pause" {
		t.Errorf("parsed %+v", m)
	}
	if !strings.HasPrefix(string(m.Patch), "--- a/raftnode") {
		t.Errorf("the patch begins with %.20q", m.Patch)
	}
}

func TestAHeaderThatPromisesNothingMustSayWhy(t *testing.T) {
	for name, text := range map[string]string{
		"no patch":       strings.Split(sample, "---")[0],
		"unknown key":    "Colour: red\n" + sample,
		"not key: value": "hello\n" + sample,
		"no Breaks":      strings.Replace(sample, "Breaks", "Source", 1),
		"no promise":     strings.Replace(sample, "Caught-by", "Source", 1),
	} {
		if _, err := Parse("m", []byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTheCorpusBuilds(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the node once for each mutant")
	}
	root := filepath.Join("..", "..")
	corpus, err := Load(filepath.Join(root, "ci", "mutants"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(corpus) < 5 {
		t.Errorf("only %d mutants", len(corpus))
	}
	for _, mutant := range corpus {
		t.Run(mutant.Name, func(t *testing.T) {
			program, err := mutant.Build(t.Context(), root, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(program); err != nil {
				t.Error(err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("a: b\n--- "))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse("fuzz", data)
		if err == nil && (m.Breaks == "" || len(m.Patch) == 0) {
			t.Errorf("accepted %q", data)
		}
	})
}
