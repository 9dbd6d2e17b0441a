package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// An fsync must cost what it saves, in time that does not grow with what came before: the
// nanoseconds for each of the changes are the same for many as for few.
func BenchmarkFsyncAfterManyChanges(b *testing.B) {
	for _, changes := range []int{2_500, 10_000, 40_000} {
		b.Run(fmt.Sprint(changes), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "f"))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			root, err := os.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = root.Close() }()
			l, err := newUndoLog(int(root.Fd()), Options{NoSync: true})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				b.StopTimer()
				for range changes {
					if _, err := l.write(int(f.Fd()), 0, 8, func() (int, error) { return f.WriteAt([]byte("12345678"), 0) }); err != nil {
						b.Fatal(err)
					}
				}
				mark, key, err := l.begin(int(f.Fd()))
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				l.synced(mark, key)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(changes), "ns/change")
		})
	}
}

// BenchmarkDisk sets the layer beside the directory itself, and a file system in user space
// that does nothing more.
func BenchmarkDisk(b *testing.B) {
	for name, cover := range map[string]func(b *testing.B) string{
		"plain": func(b *testing.B) string { return b.TempDir() },
		"loopback": func(b *testing.B) string {
			if _, err := Supported(); err != nil {
				b.Skip(err)
			}
			dir := b.TempDir()
			root, err := fs.NewLoopbackRoot(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			server, err := fs.Mount(dir, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = server.Unmount() })
			return dir
		},
		"layer": func(b *testing.B) string {
			_, dir := coveredWith(b, Options{})
			return dir
		},
	} {
		b.Run("fsync/"+name, func(b *testing.B) {
			f, err := os.Create(filepath.Join(cover(b), "f"))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			for b.Loop() {
				if _, err := f.Write(make([]byte, 256)); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("read/"+name, func(b *testing.B) {
			p := filepath.Join(cover(b), "f")
			if err := os.WriteFile(p, make([]byte, 64<<10), 0o644); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := os.ReadFile(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSupported(b *testing.B) {
	for b.Loop() {
		if _, err := Supported(); err != nil {
			b.Skip(err)
		}
	}
}
