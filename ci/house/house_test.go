// Package house holds the project to its own layout: which directory may import which,
// and how long a file and a function may be.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the layout: a directory, and the directories below it that it may import.
// The longest matching prefix counts. A directory may import its own subdirectories.
var mayImport = map[string][]string{
	"cmd/checker":              {"harness", "reports", "checkers", "workloads", "nemesis", "systems", "clusters", "histories"},
	"cmd/raftnode":             {"raftnode"},
	"cmd/agent":                {"nemesis/agent"},
	"harness":                  {"reports", "checkers", "workloads", "nemesis", "systems", "clusters", "histories"},
	"reports":                  {"checkers", "histories"},
	"checkers":                 {"histories"},
	"workloads":                {"checkers", "histories"},
	"nemesis":                  {"clusters", "histories"},
	"nemesis/agent":            {"clusters"},
	"systems":                  {"clusters", "histories"},
	"clusters":                 {},
	"histories":                {},
	"simulator":                {"workloads", "nemesis", "checkers", "histories", "raftnode"},
	"raftnode":                 {},
	"raftnode/raft":            {},
	"raftnode/wal":             {"raftnode/files"},
	"raftnode/kv":              {},
	"raftnode/files":           {},
	"raftnode/snap":            {"raftnode/files"},
	"raftnode/internal/varint": {},
	"raftnode/disk":            {"raftnode/files", "raftnode/internal/varint", "raftnode/raft", "raftnode/snap", "raftnode/wal"},
	"ci":                       {},
	"ci/bench/faults":          {"nemesis", "clusters", "histories"},
	"ci/bench/linearizability": {"checkers", "histories"},
}

func TestImportsGoOnlyDownward(t *testing.T) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	seen := 0
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		from := strings.TrimPrefix(pkg.ImportPath, "capsize/")
		for _, path := range pkg.Imports {
			to, ours := strings.CutPrefix(path, "capsize/")
			if ours && !allowed(from, to) {
				t.Errorf("%s imports %s: the layout does not allow it", from, to)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages looked at", seen)
	}
}

func TestTheLayoutRefusesUpwardImports(t *testing.T) {
	for _, wrong := range [][2]string{{"checkers", "harness"}, {"histories", "checkers"}, {"raftnode/raft", "raftnode/wal"}, {"raftnode/server", "histories"}, {"nowhere", "histories"}} {
		if allowed(wrong[0], wrong[1]) {
			t.Errorf("%s may import %s", wrong[0], wrong[1])
		}
	}
}

func allowed(from, to string) bool {
	room := ""
	for candidate := range mayImport {
		if within(from, candidate) && len(candidate) > len(room) {
			room = candidate
		}
	}
	if room == "" {
		return false
	}
	return within(to, room) || slices.ContainsFunc(mayImport[room], func(below string) bool { return within(to, below) })
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

const (
	mostFileLines     = 650
	mostFunctionLines = 80
)

func TestFilesAndFunctionsAreShort(t *testing.T) {
	files := token.NewFileSet()
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() != ".." && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if lines := files.Position(file.FileEnd).Line; lines > mostFileLines {
			t.Errorf("%s has %d lines: split it by idea", path, lines)
		}
		for _, declaration := range file.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok {
				if lines := files.Position(function.End()).Line - files.Position(function.Pos()).Line + 1; lines > mostFunctionLines {
					t.Errorf("%s: %s has %d lines", path, function.Name.Name, lines)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
