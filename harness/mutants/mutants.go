// Package mutants measures detection: it breaks the reference node on purpose, one small
// patch at a time, and lets the harness find out. A check that never fired proves nothing;
// this package is how each one is made to fire.
//
// A mutant is one file of ci/mutants: a header of "Key: value" lines, then a patch. The
// node's own code carries no switches for bugs: the patch is applied to a copy.
package mutants

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"capsize/harness"
)

// Mutant is one deliberate bug.
type Mutant struct {
	Name     string   // the file's name without .patch
	Breaks   string   // what it breaks, in a sentence
	Source   string   // the real bug that it makes again
	CaughtBy []string // the checkers of which one must say invalid; empty: nothing is promised yet
	Workload string
	Nemesis  []string // faults that bring it to light
	Schedule string   // file beside the patch, where chance does not find it
	Needs    string   // what it takes, where CaughtBy is empty
	Patch    []byte
}

// Promised reports whether a missed mutant is a failure.
func (m *Mutant) Promised() bool { return len(m.CaughtBy) > 0 }

// Load reads the corpus, or those of it that names tells.
func Load(dir string, names []string) ([]Mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, fmt.Errorf("load mutants: %w", err)
	}
	if len(paths) == 0 {
		return nil, &harness.UsageError{Key: "corpus", Value: dir, Allowed: "a directory with *.patch files"}
	}
	var corpus []Mutant
	var known []string
	for _, path := range paths {
		mutant, err := read(path)
		if err != nil {
			return nil, err
		}
		known = append(known, mutant.Name)
		if len(names) == 0 || slices.Contains(names, mutant.Name) {
			corpus = append(corpus, mutant)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, &harness.UsageError{Key: "mutant", Value: name, Allowed: "one of " + strings.Join(known, ", ")}
		}
	}
	return corpus, nil
}

func read(path string) (Mutant, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Mutant{}, fmt.Errorf("load mutant: %w", err)
	}
	mutant, err := Parse(strings.TrimSuffix(filepath.Base(path), ".patch"), data)
	if err != nil {
		return mutant, fmt.Errorf("load mutant %s: %w", path, err)
	}
	if mutant.Schedule != "" {
		mutant.Schedule = filepath.Join(filepath.Dir(path), mutant.Schedule)
	}
	return mutant, nil
}

// Parse reads a mutant from the text of its file.
func Parse(name string, data []byte) (Mutant, error) {
	m := Mutant{Name: name}
	head, patch, found := bytes.Cut(data, []byte("\n--- "))
	if !found {
		return m, fmt.Errorf("no patch: want a line that begins with %q after the header", "--- ")
	}
	m.Patch = append([]byte("--- "), patch...)
	lines := bufio.NewScanner(bytes.NewReader(head))
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		if !ok {
			if strings.TrimSpace(lines.Text()) == "" {
				continue
			}
			return m, fmt.Errorf("header line %q: want \"Key: value\"", lines.Text())
		}
		if err := m.set(key, value); err != nil {
			return m, err
		}
	}
	if m.Breaks == "" || m.Workload == "" || len(m.Nemesis) == 0 {
		return m, fmt.Errorf("the header must say Breaks, Workload and Nemesis")
	}
	if !m.Promised() && m.Needs == "" {
		return m, fmt.Errorf("the header must say Caught-by, or Needs: what it takes to catch it")
	}
	return m, lines.Err()
}

func (m *Mutant) set(key, value string) error {
	switch key {
	case "Breaks":
		m.Breaks = value
	case "Source":
		m.Source = value
	case "Caught-by":
		m.CaughtBy = list(value)
	case "Workload":
		m.Workload = value
	case "Nemesis":
		m.Nemesis = list(value)
	case "Schedule":
		m.Schedule = value
	case "Needs":
		m.Needs = value
	default:
		return fmt.Errorf("header key %q: want Breaks, Source, Caught-by, Workload, Nemesis, Schedule or Needs", key)
	}
	return nil
}

func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}

// Build applies the mutant to a copy of the source tree at root, below dir, and builds
// the node from it. It returns the path of the program.
func (m *Mutant) Build(ctx context.Context, root, dir string) (string, error) {
	source := filepath.Join(dir, "source")
	if err := copySource(root, source); err != nil {
		return "", fmt.Errorf("mutant %s: %w", m.Name, err)
	}
	apply := exec.CommandContext(ctx, "patch", "-p1", "--batch", "--fuzz=0", "--no-backup-if-mismatch")
	apply.Dir = source
	apply.Stdin = bytes.NewReader(m.Patch)
	if out, err := apply.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mutant %s: its patch no longer fits the node's code: %w\n%s", m.Name, err, out)
	}
	return harness.BuildProgram(ctx, source, "raftnode", filepath.Join(dir, "raftnode"))
}

// copySource copies what the node is built from.
func copySource(root, to string) error {
	for _, part := range []string{"go.mod", "go.sum", "raftnode", "cmd/raftnode"} {
		from := filepath.Join(root, part)
		err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			target := filepath.Join(to, rel)
			if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
				return err
			}
			return os.WriteFile(target, data, 0o644)
		})
		if err != nil {
			return fmt.Errorf("copy the source: %w", err)
		}
	}
	return nil
}
