package house

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rows are the behaviours of the reference Raft that docs/raft-rows.md must name tests for:
// how many there are under each letter.
var rows = []struct {
	letter string
	count  int
}{{"A", 21}, {"C", 18}, {"S", 16}, {"T", 16}, {"O", 9}, {"F", 13}, {"L", 22}}

func TestThePageOfRaftRowsIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/raft-rows.md")
	if err != nil {
		t.Fatal(err)
	}
	names, err := testNames("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 100 {
		t.Errorf("only %d tests and scripts were found", len(names))
	}
	for _, flaw := range flawsOfRows(string(page), names) {
		t.Error(flaw)
	}
}

func TestAPageThatIsNotTrueIsRefused(t *testing.T) {
	names := map[string]bool{"TestA": true, "a.txt": true}
	var whole strings.Builder
	for _, r := range rows {
		for i := range r.count {
			fmt.Fprintf(&whole, "| %s%d | what | `TestA`, `a.txt` |\n", r.letter, i+1)
		}
	}
	if flaws := flawsOfRows(whole.String(), names); len(flaws) != 0 {
		t.Fatalf("a page that is true: %q", flaws)
	}
	for name, test := range map[string]struct{ from, to, want string }{
		"a test that is gone":   {"| A1 | what | `TestA`", "| A1 | what | `TestB`", "TestB does not exist"},
		"a script that is gone": {"| A1 | what | `TestA`, `a.txt`", "| A1 | what | `TestA`, `b.txt`", "b.txt does not exist"},
		"a row without a test":  {"| L22 | what | `TestA`, `a.txt` |", "| L22 | what | |", "row L22 names no test"},
		"a row that is missing": {"| S3 | what | `TestA`, `a.txt` |\n", "", "row S3 is missing"},
		"a row that is unknown": {"| T16 |", "| T17 |", "row T17 is unknown"},
		"a row that is twice":   {"| T16 |", "| T15 |", "row T15 stands there twice"},
		"a word in its place":   {"| O9 | what | `TestA`, `a.txt` |", "| O9 | what | shown elsewhere |", "row O9 names no test"},
	} {
		t.Run(name, func(t *testing.T) {
			page := strings.Replace(whole.String(), test.from, test.to, 1)
			if flaws := flawsOfRows(page, names); !slices.Contains(flaws, test.want) {
				t.Errorf("found %q, not %q", flaws, test.want)
			}
		})
	}
}

var (
	rowLine  = regexp.MustCompile(`(?m)^\| ([A-Z]\d+) \|.*\| ([^|]*)\|$`)
	nameWord = regexp.MustCompile("`((?:Test|Fuzz)\\w+|\\w+\\.txt)`")
)

// flawsOfRows says what is wrong with the page: names that are none, rows that are missing,
// unknown, there twice or without a test. A row may say why there is none.
func flawsOfRows(page string, names map[string]bool) (flaws []string) {
	for _, name := range nameWord.FindAllStringSubmatch(page, -1) {
		if !names[name[1]] {
			flaws = append(flaws, name[1]+" does not exist")
		}
	}
	wanted := make(map[string]bool)
	for _, r := range rows {
		for i := range r.count {
			wanted[fmt.Sprint(r.letter, i+1)] = true
		}
	}
	seen := make(map[string]bool)
	for _, row := range rowLine.FindAllStringSubmatch(page, -1) {
		id, shown := row[1], row[2]
		switch {
		case !wanted[id]:
			flaws = append(flaws, fmt.Sprintf("row %s is unknown", id))
		case seen[id]:
			flaws = append(flaws, fmt.Sprintf("row %s stands there twice", id))
		case !nameWord.MatchString(shown) && !strings.HasPrefix(shown, "none: "):
			flaws = append(flaws, fmt.Sprintf("row %s names no test", id))
		}
		seen[id] = true
	}
	for id := range wanted {
		if !seen[id] {
			flaws = append(flaws, fmt.Sprintf("row %s is missing", id))
		}
	}
	slices.Sort(flaws)
	return flaws
}

var testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)

// testNames returns the names of all tests of the node, and of the scripts of its core.
func testNames(root string) (map[string]bool, error) {
	names := make(map[string]bool)
	err := filepath.WalkDir(filepath.Join(root, "raftnode"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if filepath.Ext(path) == ".txt" && filepath.Base(filepath.Dir(path)) == "scripts" {
			names[filepath.Base(path)] = true
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, function := range testFunction.FindAllSubmatch(text, -1) {
			names[string(function[1])] = true
		}
		return nil
	})
	return names, err
}
