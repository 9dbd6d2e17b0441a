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

// hides says that a name is not the program's.
func (n *node) hides(name string) bool { return name == trashName && n.IsRoot() }

// What changes names or content, makes it durable, or could show the trash, is ours.
var (
	_ fs.NodeWrapChilder    = (*node)(nil)
	_ fs.NodeLookuper       = (*node)(nil)
	_ fs.NodeOpener         = (*node)(nil)
	_ fs.NodeOpendirHandler = (*node)(nil)
	_ fs.NodeCreater        = (*node)(nil)
	_ fs.NodeTmpfiler       = (*node)(nil)
	_ fs.NodeMkdirer        = (*node)(nil)
	_ fs.NodeMknoder        = (*node)(nil)
	_ fs.NodeSymlinker      = (*node)(nil)
	_ fs.NodeLinker         = (*node)(nil)
	_ fs.NodeUnlinker       = (*node)(nil)
	_ fs.NodeRmdirer        = (*node)(nil)
	_ fs.NodeRenamer        = (*node)(nil)
	_ fs.NodeSetattrer      = (*node)(nil)
	_ fs.NodeFsyncer        = (*node)(nil)
)

func errno(err error) syscall.Errno { return fs.ToErrno(err) }

// Lookup finds everything but the trash.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if n.hides(name) {
		return nil, unix.ENOENT
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

// change asks the rules whether a name may be made, removed or moved.
func (n *node) change(ctx context.Context, name string) syscall.Errno {
	if n.hides(name) {
		return unix.EPERM
	}
	return n.l.rules.meet(ctx, operation{on: OnCreate, file: filepath.Join(n.below(), name)}).errno
}

// make makes an entry, which belongs to the caller.
func (n *node) make(ctx context.Context, name string, out *fuse.EntryOut, do func(dir int, name string) error) (*fs.Inode, syscall.Errno) {
	if e := n.change(ctx, name); e != 0 {
		return nil, e
	}
	err := n.l.log.create(filepath.Join(n.real(), name), func(dir int, name string) error {
		if err := do(dir, name); err != nil {
			return err
		}
		return own(ctx, dir, name)
	})
	if err != nil {
		return nil, errno(err)
	}
	return n.Lookup(ctx, name, out)
}

// own gives a new entry to the caller, as creating it below has given it to us. The group of
// a directory that hands its own on stays.
func own(ctx context.Context, dir int, name string) error {
	caller, ok := fuse.FromContext(ctx)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	group := int(caller.Gid)
	if st.Mode&unix.S_ISGID != 0 {
		group = -1
	}
	return unix.Fchownat(dir, name, int(caller.Uid), group, unix.AT_SYMLINK_NOFOLLOW)
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	fd := -1
	in, e := n.make(ctx, name, out, func(dir int, name string) (err error) {
		fd, err = unix.Openat(dir, name, backingFlags(flags)|unix.O_CREAT|unix.O_EXCL, mode)
		return err
	})
	if e != 0 {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing was written through it
		}
		return nil, nil, 0, e
	}
	made, ok := in.Operations().(*node)
	if !ok {
		_ = unix.Close(fd) // nothing was written through it
		return nil, nil, 0, unix.EIO
	}
	return in, made.opened(fd, flags), 0, 0 // of the file, not of the directory: rules go by its name
}

// Tmpfile refuses: a file without a name can be given none through FUSE, so programs that
// would make one must know how to do without.
func (n *node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, unix.EOPNOTSUPP
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, out, func(dir int, name string) error { return unix.Mkdirat(dir, name, mode) })
}

func (n *node) Mknod(ctx context.Context, name string, mode, device uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, out, func(dir int, name string) error { return unix.Mknodat(dir, name, mode, int(device)) })
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, out, func(dir int, name string) error { return unix.Symlinkat(target, dir, name) })
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	to, ok := target.(*node)
	if !ok {
		return nil, unix.EXDEV
	}
	if e := n.change(ctx, name); e != 0 {
		return nil, e
	}
	err := n.l.log.create(filepath.Join(n.real(), name), func(dir int, name string) error {
		return unix.Linkat(unix.AT_FDCWD, to.real(), dir, name, 0)
	})
	if err != nil {
		return nil, errno(err)
	}
	return n.Lookup(ctx, name, out)
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if e := n.change(ctx, name); e != 0 {
		return e
	}
	return errno(n.l.log.remove(filepath.Join(n.real(), name), false))
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	if e := n.change(ctx, name); e != 0 {
		return e
	}
	return errno(n.l.log.remove(filepath.Join(n.real(), name), true))
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := parent.(*node)
	if !ok {
		return unix.EXDEV
	}
	if flags&^(unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE) != 0 {
		return unix.EINVAL
	}
	if n.hides(name) {
		return unix.ENOENT
	}
	if e := to.change(ctx, newName); e != 0 {
		return e
	}
	return errno(n.l.log.rename(filepath.Join(n.real(), name), filepath.Join(to.real(), newName), flags))
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
	if v := l.rules.meet(ctx, operation{on: OnFsync, file: n.below()}); v.errno != 0 {
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

// Readdirent lists everything but the trash.
func (d *openDir) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	entry, e := d.dirStream.Readdirent(ctx)
	if e == 0 && entry != nil && d.n.hides(entry.Name) {
		return d.dirStream.Readdirent(ctx)
	}
	return entry, e
}

func (d *openDir) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.n.Fsync(ctx, nil, flags)
}
