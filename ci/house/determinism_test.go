package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// impure finds what would make a package's output depend on more than its input: clocks,
// files, sockets, chance that nobody seeded, goroutines. Node, around the core, has
// goroutines, and only that.
func impure(t *testing.T, name string, src any) (found []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		switch path := strings.Trim(spec.Path.Value, `"`); path {
		case "time", "os", "net", "net/http", "crypto/rand", "math/rand", "syscall", "io/ioutil", "hash/maphash":
			found = append(found, "imports "+path)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, "starts a goroutine")
		case *ast.SelectStmt:
			found = append(found, "selects")
		case *ast.SelectorExpr:
			if from, ok := n.X.(*ast.Ident); ok && from.Name == "rand" && !strings.HasPrefix(n.Sel.Name, "New") && n.Sel.Name != "Rand" && n.Sel.Name != "PCG" {
				found = append(found, "draws from the global source: rand."+n.Sel.Name)
			}
		}
		return true
	})
	return found
}

func TestTheDeterministicPackagesHaveNoClockAndNoChance(t *testing.T) {
	seen := 0
	for _, dir := range []string{"raft", "raft/membership", "raft/quorum", "kv", "replica"} {
		files, err := filepath.Glob(filepath.Join("../../raftnode", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") || dir == "raft" && filepath.Base(name) == "node.go" {
				continue
			}
			seen++
			for _, what := range impure(t, name, nil) {
				t.Errorf("%s %s", name, what)
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d files looked at", seen)
	}
}

func TestAClockOrChanceIsNoticed(t *testing.T) {
	for what, source := range map[string]string{
		"imports time":             `package x; import "time"; var _ = time.Now`,
		"starts a goroutine":       `package x; func f() { go f() }`,
		"selects":                  `package x; func f() { select {} }`,
		"global source: rand.IntN": `package x; import "math/rand/v2"; var _ = rand.IntN(3)`,
		"imports crypto/rand":      `package x; import "crypto/rand"; var _ = rand.Reader`,
	} {
		if found := impure(t, "x.go", source); len(found) == 0 || !strings.Contains(strings.Join(found, " "), what) {
			t.Errorf("%s: found %v", what, found)
		}
	}
	if found := impure(t, "x.go", `package x; import "math/rand/v2"; var _ = rand.New(rand.NewPCG(1, 2))`); len(found) > 0 {
		t.Errorf("a seeded source: %v", found)
	}
}
