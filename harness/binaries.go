package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// program returns the path of one of our own programs ("raftnode", "agent"): the one that
// was asked for, else the one beside the running checker, else a fresh static build from
// source. Building is cheap when nothing has changed: Go's cache does it.
func program(ctx context.Context, name, asked string) (string, error) {
	if asked != "" {
		return filepath.Abs(asked)
	}
	if beside, ok := besideChecker(name); ok {
		return beside, nil
	}
	root, err := SourceRoot()
	if err != nil {
		return "", fmt.Errorf("find the program %s: %w; build it beside the checker (go build -o bin/ ./cmd/...) or name it with --%s-binary", name, err, flagOf(name))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "capsize", "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return BuildProgram(ctx, root, name, filepath.Join(dir, name))
}

func flagOf(name string) string {
	if name == "raftnode" {
		return "node"
	}
	return name
}

// BuildProgram builds cmd/<name> of the Capsize source tree at root as a static binary,
// and returns its path. An earlier binary at that path may be running meanwhile.
func BuildProgram(ctx context.Context, root, name, path string) (string, error) {
	fresh, err := os.CreateTemp(filepath.Dir(path), name+"-*")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer func() { _ = os.Remove(fresh.Name()) }() // gone already when the build succeeded
	if err := fresh.Close(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", fresh.Name(), "./cmd/"+name)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s from %s: %w\n%s", name, root, err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(fresh.Name(), path); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return path, nil
}

// besideChecker finds a program in the directory of the running checker, unless that is
// a temporary one of `go run`.
func besideChecker(name string) (string, bool) {
	exe, err := os.Executable()
	if err != nil || strings.Contains(exe, "go-build") {
		return "", false
	}
	path := filepath.Join(filepath.Dir(exe), name)
	info, err := os.Stat(path)
	return path, err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// SourceRoot returns the directory of Capsize's own source: the module that the working
// directory lies in, else the tree that this program was built from.
func SourceRoot() (string, error) {
	if dir, err := os.Getwd(); err == nil {
		for ; ; dir = filepath.Dir(dir) {
			if isSource(dir) {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	if _, file, _, ok := runtime.Caller(0); ok {
		if dir := filepath.Dir(filepath.Dir(file)); isSource(dir) {
			return dir, nil
		}
	}
	return "", errors.New("no Capsize source tree here")
}

func isSource(dir string) bool {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && strings.HasPrefix(string(mod), "module capsize\n")
}
