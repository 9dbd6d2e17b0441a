package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// asideMost bounds how often a directory is moved aside in one run.
const asideMost = 10_000

// moveAside renames a directory of this run, so that what used it finds nothing there, and
// returns its new name: <dir>.aside-1, -2 … Nothing is removed. A directory that is not there
// is none to move: the name is empty then.
func moveAside(root, dir string) (string, error) {
	name, err := filepath.Rel(root, dir)
	if err != nil || !filepath.IsLocal(name) || name == "." {
		return "", fmt.Errorf("move %s aside: it does not lie in %s, the directory of this run", dir, root)
	}
	run, err := os.OpenRoot(root)
	if err != nil {
		return "", fmt.Errorf("move %s aside: %w", dir, err)
	}
	defer func() { _ = run.Close() }() // nothing is written through it
	if _, err := run.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for i := range asideMost {
		aside := fmt.Sprintf("%s.aside-%d", strings.TrimRight(name, "/"), i+1)
		if _, err := run.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			if err := run.Rename(name, aside); err != nil {
				return "", fmt.Errorf("move %s aside: %w", dir, err)
			}
			return filepath.Join(root, aside), nil
		}
	}
	return "", fmt.Errorf("move %s aside: it was moved %d times already", dir, asideMost)
}
