package disk

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// layer is the file system: what its nodes and open files share.
type layer struct {
	root   string // path of the backing directory that no mount over it hides
	noSync bool
	rules  *rules
	log    *undoLog

	writes, bytes, fsyncs atomic.Int64
}

type node struct {
	fs.LoopbackNode
	l *layer
}

// WrapChild makes every node below one of ours.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, l: n.l}
}

func (n *node) below() string { return n.Path(n.Root()) }
func (n *node) real() string  { return filepath.Join(n.l.root, n.below()) }

// openFile is an open file. It hides the passthrough of its base: every read and write must
// come here.
type openFile struct {
	*fs.LoopbackFile
	n    *node
	fd   int
	sync bool // opened with O_SYNC or O_DSYNC
}

func (f *openFile) PassthroughFd() (int, bool) { return -1, false }

var (
	_ fs.NodeWrapChilder = (*node)(nil)
	_ fs.NodeOpener      = (*node)(nil)
	_ fs.NodeCreater     = (*node)(nil)
	_ fs.NodeSetattrer   = (*node)(nil)
	_ fs.NodeGetattrer   = (*node)(nil)
	_ fs.NodeFsyncer     = (*node)(nil)
	_ fs.NodeUnlinker    = (*node)(nil)
	_ fs.NodeRenamer     = (*node)(nil)
	_ fs.NodeMkdirer     = (*node)(nil)
	_ fs.FileWriter      = (*openFile)(nil)
	_ fs.FileReader      = (*openFile)(nil)
	_ fs.FileFsyncer     = (*openFile)(nil)
	_ fs.FileAllocater   = (*openFile)(nil)
	_ fs.FileSetattrer   = (*openFile)(nil)
)

func errno(err error) syscall.Errno { return fs.ToErrno(err) }

// asErr is the other way round: a zero Errno in an error is not nil.
func asErr(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// backingFlags are those with which a file is opened below: readable, for the undo log; not
// appending, since the kernel gives offsets; through the cache, since buffers are not aligned.
func backingFlags(flags uint32) int {
	f := int(flags) &^ (unix.O_APPEND | unix.O_DIRECT | unix.O_TRUNC | unix.O_CREAT | unix.O_EXCL | fuse.FMODE_EXEC)
	if f&unix.O_ACCMODE == unix.O_WRONLY {
		f = f&^unix.O_ACCMODE | unix.O_RDWR
	}
	return f | unix.O_CLOEXEC | unix.O_NOFOLLOW
}

func (n *node) opened(fd int, flags uint32) *openFile {
	return &openFile{LoopbackFile: fs.NewLoopbackFile(fd).(*fs.LoopbackFile), n: n, fd: fd, sync: flags&unix.O_DSYNC != 0}
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

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (in *fs.Inode, fh fs.FileHandle, ff uint32, e syscall.Errno) {
	if v := n.l.rules.meet(ctx, OnCreate, filepath.Join(n.below(), name), 0); v.errno != 0 {
		return nil, nil, 0, v.errno
	}
	p := filepath.Join(n.real(), name)
	e = n.created(p, func() syscall.Errno {
		in, fh, ff, e = n.LoopbackNode.Create(ctx, name, flags|unix.O_EXCL, mode, out)
		return e
	}, os.Remove)
	if e != 0 {
		return nil, nil, 0, e
	}
	fd, err := unix.Open(p, backingFlags(flags), 0)
	_ = fh.(fs.FileReleaser).Release(ctx)
	if err != nil {
		return nil, nil, 0, errno(err)
	}
	return in, n.opened(fd, flags), ff, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (in *fs.Inode, e syscall.Errno) {
	if v := n.l.rules.meet(ctx, OnCreate, filepath.Join(n.below(), name), 0); v.errno != 0 {
		return nil, v.errno
	}
	e = n.created(filepath.Join(n.real(), name), func() syscall.Errno {
		in, e = n.LoopbackNode.Mkdir(ctx, name, mode, out)
		return e
	}, os.Remove)
	return in, e
}

// directory is the identity of the node's directory.
func (n *node) directory() (inode, error) {
	var st unix.Stat_t
	if err := unix.Stat(n.real(), &st); err != nil {
		return inode{}, err
	}
	return inode{st.Dev, st.Ino}, nil
}

// created makes a name of which the log knows.
func (n *node) created(p string, do func() syscall.Errno, remove func(string) error) syscall.Errno {
	dir, err := n.directory()
	if err != nil {
		return errno(err)
	}
	return errno(n.l.log.name(dir, func() error { return asErr(do()) }, func() error { return remove(p) }, nil))
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if v := n.l.rules.meet(ctx, OnCreate, filepath.Join(n.below(), name), 0); v.errno != 0 {
		return v.errno
	}
	dir, err := n.directory()
	if err != nil {
		return errno(err)
	}
	p, saved := filepath.Join(n.real(), name), ""
	return errno(n.l.log.name(dir, func() error {
		saved = n.l.log.save(p)
		return asErr(n.LoopbackNode.Unlink(ctx, name))
	}, func() error { return os.Rename(saved, p) }, func() { _ = os.Remove(saved) }))
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := parent.(*node)
	if !ok {
		return unix.EXDEV
	}
	if v := n.l.rules.meet(ctx, OnCreate, filepath.Join(to.below(), newName), 0); v.errno != 0 {
		return v.errno
	}
	dir, err := to.directory()
	if err != nil {
		return errno(err)
	}
	before, after, saved := filepath.Join(n.real(), name), filepath.Join(to.real(), newName), ""
	return errno(n.l.log.name(dir, func() error {
		if flags == 0 {
			saved = n.l.log.save(after)
		}
		return asErr(n.LoopbackNode.Rename(ctx, name, parent, newName, flags))
	}, func() error {
		if flags&unix.RENAME_EXCHANGE != 0 {
			return unix.Renameat2(unix.AT_FDCWD, after, unix.AT_FDCWD, before, unix.RENAME_EXCHANGE)
		}
		if err := os.Rename(after, before); err != nil || saved == "" {
			return err
		}
		return os.Rename(saved, after)
	}, func() { _ = os.Remove(saved) }))
}

func (n *node) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.LoopbackNode.Getattr(ctx, fh, out)
}

// Setattr sends changes of size through an open file, where the log sees them.
func (n *node) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	f, ok := fh.(*openFile)
	if _, sized := in.GetSize(); sized && !ok {
		fd, err := unix.Open(n.real(), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return errno(err)
		}
		f = n.opened(fd, 0)
		defer func() { _ = f.Release(ctx) }()
		fh = f
	}
	return n.LoopbackNode.Setattr(ctx, fh, in, out)
}

func (f *openFile) Setattr(ctx context.Context, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if e := f.truncate(ctx, int64(size)); e != 0 {
			return e
		}
	}
	return f.LoopbackFile.Setattr(ctx, in, out)
}

func (f *openFile) truncate(ctx context.Context, to int64) syscall.Errno {
	if v := f.n.l.rules.meet(ctx, OnWrite, f.n.below(), 0); v.errno != 0 {
		return v.errno
	}
	return errno(f.n.l.log.truncate(f.fd, to, func() error { return unix.Ftruncate(f.fd, to) }))
}

func (f *openFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	l := f.n.l
	v := l.rules.meet(ctx, OnWrite, f.n.below(), len(data))
	if v.errno != 0 {
		return 0, v.errno
	}
	whole := len(data)
	if v.short && whole > 1 {
		data = data[:1+int(v.cut*float64(whole-1))]
	}
	if v.torn {
		end := (off + int64(v.cut*float64(whole))) / sectorSize * sectorSize
		data = data[:max(0, end-off)]
	}
	l.writes.Add(1)
	l.bytes.Add(int64(len(data)))
	n, err := l.log.write(f.fd, off, int64(len(data)), func() (int, error) { return unix.Pwrite(f.fd, data, off) })
	if err != nil {
		return uint32(max(n, 0)), errno(err)
	}
	if v.torn {
		return 0, unix.EIO
	}
	if f.sync {
		mark, key, err := l.log.begin(f.fd)
		if err != nil {
			return 0, errno(err)
		}
		l.log.synced(mark, key)
	}
	return uint32(n), 0
}

func (f *openFile) Read(ctx context.Context, buffer []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	v := f.n.l.rules.meet(ctx, OnRead, f.n.below(), len(buffer))
	if v.errno != 0 {
		return nil, v.errno
	}
	if !v.flip {
		return f.LoopbackFile.Read(ctx, buffer, off)
	}
	n, err := unix.Pread(f.fd, buffer, off)
	if err != nil {
		return nil, errno(err)
	}
	if bit := int(v.cut * float64(n*8)); n > 0 {
		buffer[bit/8] ^= 1 << (bit % 8)
	}
	return fuse.ReadResultData(buffer[:n]), 0
}

func (f *openFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if v := f.n.l.rules.meet(ctx, OnWrite, f.n.below(), int(size)); v.errno != 0 {
		return v.errno
	}
	_, err := f.n.l.log.write(f.fd, int64(off), int64(size), func() (int, error) {
		return -1, asErr(f.LoopbackFile.Allocate(ctx, off, size, mode))
	})
	return errno(err)
}

func (f *openFile) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	return f.n.fsync(ctx, f.fd)
}

// Fsync is that of directories, too.
func (n *node) Fsync(ctx context.Context, fh fs.FileHandle, flags uint32) syscall.Errno {
	if f, ok := fh.(*openFile); ok {
		return f.Fsync(ctx, flags)
	}
	fd, err := unix.Open(n.real(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errno(err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written through it
	return n.fsync(ctx, fd)
}

func (n *node) fsync(ctx context.Context, fd int) syscall.Errno {
	l := n.l
	l.fsyncs.Add(1)
	mark, key, err := l.log.begin(fd)
	if err != nil {
		return errno(err)
	}
	if v := l.rules.meet(ctx, OnFsync, n.below(), 0); v.errno != 0 {
		if v.lose {
			l.log.lose(mark, key)
		}
		return v.errno
	}
	if !l.noSync {
		if err := unix.Fsync(fd); err != nil {
			return errno(err)
		}
	}
	l.log.synced(mark, key)
	return 0
}

// openDir is an open directory, whose fsync makes names durable.
type openDir struct {
	dirStream
	n *node
}

// dirStream is what the directories of the base can do, but for their fsync.
type dirStream interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	base, ff, e := n.LoopbackNode.OpendirHandle(ctx, flags)
	if e != 0 {
		return nil, 0, e
	}
	return &openDir{base.(dirStream), n}, ff, 0
}

func (d *openDir) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.n.Fsync(ctx, nil, flags)
}
