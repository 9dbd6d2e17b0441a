// Package files is the part of a file system that a node's durable state needs. [OS] is
// the real one; package crashfs has one in memory that crashes.
package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// FS is a file system. It may be used by several goroutines.
type FS interface {
	// MkdirAll creates a directory and its parents, durably.
	MkdirAll(dir string) error
	// List returns the names of the files in a directory.
	List(dir string) ([]string, error)
	ReadFile(path string) ([]byte, error)
	// Open opens an existing file for reading from its beginning.
	Open(path string) (io.ReadCloser, error)
	// Create makes a new, empty file. It fails where one exists.
	Create(path string) (File, error)
	// OpenFile opens an existing file for writing.
	OpenFile(path string) (File, error)
	Remove(path string) error
	// Rename gives a file another name, in the same directory, in place of whatever has it.
	Rename(from, to string) error
	// SyncDir makes the creation, renaming and removal of files in a directory durable.
	SyncDir(dir string) error
}

// File is a file that is written. What was written is durable after Sync, together with as
// much of the size as is needed to read it back.
type File interface {
	io.WriterAt
	io.Closer
	// Truncate sets the file's size.
	Truncate(size int64) error
	Sync() error
}

// OS is the operating system's file system.
type OS struct{}

// MkdirAll implements FS. It syncs the parent of every directory it creates.
func (fs OS) MkdirAll(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := fs.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return fs.SyncDir(filepath.Dir(dir))
}

// List implements FS.
func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// ReadFile implements FS.
func (OS) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

// Open implements FS.
func (OS) Open(path string) (io.ReadCloser, error) { return os.Open(path) }

// Create implements FS.
func (OS) Create(path string) (File, error) {
	return osFile(os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644))
}

// OpenFile implements FS.
func (OS) OpenFile(path string) (File, error) { return osFile(os.OpenFile(path, os.O_WRONLY, 0)) }

// Remove implements FS.
func (OS) Remove(path string) error { return os.Remove(path) }

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type file struct{ *os.File }

func osFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

func (f file) Sync() error { return syncData(f.File) }
