package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"capsize/checkers"
)

// Directory is a run directory: the whole truth about one run.
type Directory string

// The files of a run directory.
func (d Directory) Plan() string     { return filepath.Join(string(d), "plan.yaml") }
func (d Directory) Schedule() string { return filepath.Join(string(d), "schedule.yaml") }
func (d Directory) Resolved() string { return filepath.Join(string(d), "resolved.yaml") }
func (d Directory) History() string  { return filepath.Join(string(d), "history.jsonl") }
func (d Directory) Facts() string    { return filepath.Join(string(d), "run.json") }
func (d Directory) Verdict() string  { return filepath.Join(string(d), "verdict.json") }
func (d Directory) Report() string   { return filepath.Join(string(d), "report.html") }
func (d Directory) JUnit() string    { return filepath.Join(string(d), "junit.xml") }
func (d Directory) Summary() string  { return filepath.Join(string(d), "summary.md") }

// Node returns the directory of what was collected from a node.
func (d Directory) Node(node string) string { return filepath.Join(string(d), "nodes", node) }

// Cluster returns where a local cluster keeps its hosts while the run goes on.
func (d Directory) Cluster() string { return filepath.Join(string(d), "cluster") }

// Facts are what a run directory says about the run besides plan and history: what the
// harness itself observed. It is written when the run starts and again when it ends, so
// that a run whose checker was killed is known as such.
type Facts struct {
	ID       string    `json:"id"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"` // zero: the checker was killed
	Nodes    []string  `json:"nodes"`
	Version  string    `json:"version"`            // of Capsize
	Problems []string  `json:"problems,omitempty"` // what failed in the harness, not in the system
	Notes    []string  `json:"notes,omitempty"`    // what a reader should know: "stopped early by Ctrl-C"
	Planned  int       `json:"planned"`            // faults in the schedule
	// Alarm is what the live check found; it ended the run.
	Alarm *checkers.Alarm `json:"alarm,omitempty"`
}

// Save writes the facts to the run directory.
func (f Facts) Save(d Directory) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("save %s: %w", d.Facts(), err)
	}
	return writeFile(d.Facts(), append(data, '\n'))
}

// LoadFacts reads what Save wrote.
func LoadFacts(d Directory) (Facts, error) {
	var f Facts
	data, err := os.ReadFile(d.Facts())
	if errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("%s is not a run directory: it has no run.json", d)
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("read %s: %w", d.Facts(), err)
	}
	return f, nil
}

// NewDirectory makes runs/<name>/<time>, and points runs/latest at it.
func NewDirectory(runs, name string, now time.Time) (Directory, error) {
	stamp := now.UTC().Format("20060102T150405Z")
	parent, err := filepath.Abs(filepath.Join(runs, name))
	if err != nil {
		return "", fmt.Errorf("make the run directory: %w", err)
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("make the run directory: %w (choose another place with --runs)", err)
	}
	for try := 1; try <= 100; try++ {
		dir := filepath.Join(parent, stamp)
		if try > 1 {
			dir = fmt.Sprintf("%s-%d", dir, try)
		}
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			pointLatest(runs, dir)
			return Directory(dir), nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make the run directory: %w (choose another place with --runs)", err)
		}
	}
	return "", fmt.Errorf("make the run directory: 100 runs of this second exist already below %s", parent)
}

// pointLatest is a convenience; a file system without symbolic links does without it.
func pointLatest(runs, dir string) {
	link := filepath.Join(runs, "latest")
	if info, err := os.Lstat(link); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return
	}
	rel, err := filepath.Rel(runs, dir)
	if abs, absErr := filepath.Abs(runs); absErr == nil {
		rel, err = filepath.Rel(abs, dir)
	}
	if err != nil {
		return
	}
	_ = os.Remove(link)
	_ = os.Symlink(rel, link)
}

// writeFile replaces a file in one step, so that a full disk never leaves half of one.
func writeFile(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
