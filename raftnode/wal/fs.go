package wal

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// FS is the part of a file system that a log needs. [OS] is the real one; package
// crashfs has one in memory that crashes.
type FS interface {
	// MkdirAll creates a directory and its parents, durably.
	MkdirAll(dir string) error
	// List returns the names of the files in a directory.
	List(dir string) ([]string, error)
	ReadFile(path string) ([]byte, error)
	// Create makes a new, empty file. It fails where one exists.
	Create(path string) (File, error)
	// Append opens an existing file for writing at its end.
	Append(path string) (File, error)
	Remove(path string) error
	// SyncDir makes the creation and removal of files in a directory durable.
	SyncDir(dir string) error
}

// File is a file that is written at its end.
type File interface {
	io.WriteCloser
	// Truncate cuts the file; later writes go to its new end.
	Truncate(size int64) error
	// Sync makes the file's data and size durable.
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

// Create implements FS.
func (OS) Create(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
}

// Append implements FS.
func (OS) Append(path string) (File, error) { return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0) }

// Remove implements FS.
func (OS) Remove(path string) error { return os.Remove(path) }

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
