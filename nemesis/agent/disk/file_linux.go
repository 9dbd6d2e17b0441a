package disk

import (
	"context"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFile is an open file. Of its base it has what changes no content: every read and write
// must come here, and none may be passed through by the kernel.
type openFile struct {
	baseFile
	n    *node
	fd   int
	sync bool // opened with O_SYNC or O_DSYNC
}

type baseFile interface {
	fs.FileReader
	fs.FileGetattrer
	fs.FileSetattrer
	fs.FileStatxer
	fs.FileLseeker
	fs.FileFlusher
	fs.FileReleaser
}

var (
	_ fs.FileReader    = (*openFile)(nil)
	_ fs.FileWriter    = (*openFile)(nil)
	_ fs.FileWritever  = (*openFile)(nil)
	_ fs.FileFsyncer   = (*openFile)(nil)
	_ fs.FileAllocater = (*openFile)(nil)
	_ fs.FileSetattrer = (*openFile)(nil)
)

// backingFlags are those with which a file is opened below: readable, for the undo log; not
// appending, since the kernel gives offsets; through the cache, since buffers are not
// aligned; not synchronous, since our own fsync follows.
func backingFlags(flags uint32) int {
	f := int(flags) &^ (unix.O_APPEND | unix.O_DIRECT | unix.O_SYNC | unix.O_TRUNC | unix.O_CREAT | unix.O_EXCL | fuse.FMODE_EXEC)
	if f&unix.O_ACCMODE == unix.O_WRONLY {
		f = f&^unix.O_ACCMODE | unix.O_RDWR
	}
	return f | unix.O_CLOEXEC | unix.O_NOFOLLOW
}

func (n *node) opened(fd int, flags uint32) *openFile {
	return &openFile{baseFile: fs.NewLoopbackFile(fd).(baseFile), n: n, fd: fd, sync: flags&unix.O_DSYNC != 0}
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fd, err := unix.Open(n.real(), backingFlags(flags), 0)
	if err != nil {
		return nil, 0, errno(err)
	}
	f := n.opened(fd, flags)
	if flags&unix.O_TRUNC != 0 {
		if e := f.truncate(ctx, 0); e != 0 {
			_ = f.Release(ctx)
			return nil, 0, e
		}
	}
	return f, 0, 0
}

func (f *openFile) Setattr(ctx context.Context, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if e := f.truncate(ctx, int64(size)); e != 0 {
			return e
		}
	}
	return f.baseFile.Setattr(ctx, in, out)
}

func (f *openFile) truncate(ctx context.Context, to int64) syscall.Errno {
	if v := f.n.l.rules.meet(ctx, operation{on: OnWrite, file: f.n.below()}); v.errno != 0 {
		return v.errno
	}
	return errno(f.n.l.log.resize(f.fd, to, func() error { return unix.Ftruncate(f.fd, to) }))
}

// Writev is for data that lies in several pieces.
func (f *openFile) Writev(ctx context.Context, data [][]byte, off int64) (uint32, syscall.Errno) {
	return f.Write(ctx, slices.Concat(data...), off)
}

func (f *openFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	l := f.n.l
	v := l.rules.meet(ctx, operation{on: OnWrite, file: f.n.below(), off: off, size: int64(len(data)), data: true})
	if v.errno != 0 {
		return 0, v.errno
	}
	if v.keep > 0 {
		data = data[:v.keep]
	}
	l.writes.Add(1)
	l.bytes.Add(int64(len(data)))
	n, err := l.log.write(f.fd, off, int64(len(data)), func() (int, error) { return unix.Pwrite(f.fd, data, off) })
	if err != nil {
		l.rules.missed(v)
		return uint32(max(n, 0)), errno(err)
	}
	if v.torn {
		return 0, unix.EIO
	}
	if f.sync {
		if e := f.n.fsync(ctx, f.fd); e != 0 {
			return 0, e
		}
	}
	return uint32(n), 0
}

func (f *openFile) Read(ctx context.Context, buffer []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	o := operation{on: OnRead, file: f.n.below(), off: off, data: true}
	if !f.n.l.rules.healthy.Load() {
		_, size, err := inodeOf(f.fd)
		if err != nil {
			return nil, errno(err)
		}
		o.size = max(0, min(int64(len(buffer)), size-off))
	}
	v := f.n.l.rules.meet(ctx, o)
	if v.errno != 0 {
		return nil, v.errno
	}
	if !v.flip {
		return f.baseFile.Read(ctx, buffer, off)
	}
	n, err := unix.Pread(f.fd, buffer, off)
	if err != nil {
		return nil, errno(err)
	}
	if n == 0 { // cut off meanwhile
		f.n.l.rules.missed(v)
	} else {
		bit := int(v.cut * float64(n*8))
		buffer[bit/8] ^= 1 << (bit % 8)
	}
	return fuse.ReadResultData(buffer[:n]), 0
}

// Allocate is fallocate(2). What punches holes or writes zeros is a write, what makes the
// file longer a change of its size, and the rest changes nothing that could be lost.
func (f *openFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	l := f.n.l
	if v := l.rules.meet(ctx, operation{on: OnWrite, file: f.n.below(), size: int64(size)}); v.errno != 0 {
		return v.errno
	}
	_, before, err := inodeOf(f.fd)
	if err != nil {
		return errno(err)
	}
	do := func() error { return unix.Fallocate(f.fd, mode, int64(off), int64(size)) }
	from, to, after := int64(off), int64(off+size), max(before, int64(off+size))
	if mode&unix.FALLOC_FL_KEEP_SIZE != 0 {
		to, after = min(to, before), before
	}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		_, err = l.log.write(f.fd, from, max(0, to-from), func() (int, error) { return -1, do() })
		return errno(err)
	}
	return errno(l.log.resize(f.fd, after, do))
}

func (f *openFile) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	return f.n.fsync(ctx, f.fd)
}
