package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// host is a directory on this machine, and the programs attached to it.
type host struct {
	name, dir string

	mu       sync.Mutex
	sessions map[*session]struct{} // that are not closed
}

func (h *host) Name() string { return h.name }
func (h *host) Dir() string  { return h.dir }

func (h *host) Put(ctx context.Context, local, name string, mode os.FileMode) error {
	err := checkName(name)
	if err == nil {
		err = copyFile(ctx, local, filepath.Join(h.dir, name), mode)
	}
	if err != nil {
		return fmt.Errorf("put %s on %s: %w", name, h.name, err)
	}
	return nil
}

func (h *host) Get(ctx context.Context, name, local string) error {
	err := checkName(name)
	if err == nil {
		err = copyFile(ctx, filepath.Join(h.dir, name), local, 0o644)
	}
	if err != nil {
		return fmt.Errorf("get %s from %s: %w", name, h.name, err)
	}
	return nil
}

// checkName refuses a name that leads out of the host's directory.
func checkName(name string) error {
	if filepath.IsLocal(name) {
		return nil
	}
	return errors.New("the name leads out of the host's directory")
}

// copyFile copies under another name first: a program that runs from the file keeps its
// old one, and nobody sees half of the new one.
func copyFile(ctx context.Context, from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(to), filepath.Base(to)+".new*")
	if err != nil {
		return err
	}
	_, err = io.Copy(out, untilDone{ctx, in})
	if err = errors.Join(err, out.Chmod(mode), out.Close()); err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return nil
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	in  io.Reader
}

func (r untilDone) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.in.Read(b)
}
