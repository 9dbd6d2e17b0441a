//go:build !linux

package disk

import (
	"context"
	"fmt"
	"io"
)

var errOnlyLinux = fmt.Errorf("%w: only on Linux", ErrUnsupported)

// A Disk is a directory that a layer covers.
type Disk struct{}

// Serve is only on Linux.
func Serve(context.Context, io.Reader, io.Writer, Options) error { return errOnlyLinux }

// Mount is only on Linux.
func Mount(context.Context, []string, string) (*Disk, error) { return nil, errOnlyLinux }

// Recover finds nothing to do: there are no mounts.
func Recover(string) error { return nil }

// Supported says that it is only on Linux.
func Supported() (string, error) { return "", errOnlyLinux }

// Set is only on Linux.
func (*Disk) Set(context.Context, Setting) error { return errOnlyLinux }

// PowerFail is only on Linux.
func (*Disk) PowerFail(context.Context, string, uint64) (Loss, error) { return Loss{}, errOnlyLinux }

// Stats is only on Linux.
func (*Disk) Stats(context.Context) (Stats, error) { return Stats{}, errOnlyLinux }

// Tripped never receives.
func (*Disk) Tripped() <-chan struct{} { return nil }

// Close is only on Linux.
func (*Disk) Close(context.Context) error { return errOnlyLinux }
