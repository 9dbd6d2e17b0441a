package disk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mountWithin  = 10 * time.Second
	answerWithin = 30 * time.Second
	endWithin    = 10 * time.Second
	stderrMost   = 4 << 10
)

// A Disk is a directory that a layer covers. Its methods may be called concurrently.
type Disk struct {
	mountpoint string
	cmd        *exec.Cmd
	in         io.WriteCloser
	stderr     tail
	tripped    chan struct{} // one notice at most
	ended      chan struct{} // closed when the process is gone

	asking sync.Mutex // one request at a time
	next   uint64
	answer chan answer
}

// Mount starts argv, a program that calls [Serve] on its standard input and output with the
// same directories, and returns when the mountpoint is covered.
func Mount(ctx context.Context, argv []string, mountpoint string) (*Disk, error) {
	d := &Disk{mountpoint: mountpoint, tripped: make(chan struct{}, 1), ended: make(chan struct{}), answer: make(chan answer, 1)}
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // deaf to what befalls our group
	d.cmd.Stderr = &d.stderr
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the disk layer of %s: %w", mountpoint, err)
	}
	mounted := make(chan struct{}, 1)
	go d.listen(out, mounted)
	timer := time.NewTimer(mountWithin)
	defer timer.Stop()
	select {
	case <-mounted:
		return d, nil
	case <-d.ended:
		return nil, fmt.Errorf("cover %s: %w: %s", mountpoint, ErrUnsupported, bytes.TrimSpace(d.stderr))
	case <-timer.C:
		err = fmt.Errorf("cover %s: the layer did not answer within %v", mountpoint, mountWithin)
	case <-ctx.Done():
		err = fmt.Errorf("cover %s: %w", mountpoint, ctx.Err())
	}
	d.abandon()
	return nil, err
}

// abandon waits for the end of a layer that is not wanted any more, or ends it.
func (d *Disk) abandon() {
	_ = d.in.Close() // it unmounts and ends by itself
	select {
	case <-d.ended:
	case <-time.After(endWithin):
		_ = d.cmd.Process.Kill() // it may have ended now
		<-d.ended
		_ = Recover(d.mountpoint) // the caller has an error already
	}
}

// tail keeps the last that was written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - stderrMost; over > 0 {
		*t = append((*t)[:0], (*t)[over:]...)
	}
	return len(p), nil
}

// listen owns the output of the layer, and waits for its end.
func (d *Disk) listen(out io.Reader, mounted chan struct{}) {
	defer close(d.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, lineMost)
	for lines.Scan() {
		var a answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			continue
		}
		switch a.Event {
		case eventMounted:
			select {
			case mounted <- struct{}{}:
			default: // it has said so before
			}
		case eventTripped:
			select {
			case d.tripped <- struct{}{}:
			default: // the notice of an earlier trip was not taken yet
			}
		default:
			select {
			case d.answer <- a:
			default: // nobody waits for it any more
			}
		}
	}
	_ = d.cmd.Wait() // its exit says nothing that its silence does not
}

// ask sends one request and waits for its answer.
func (d *Disk) ask(ctx context.Context, q request) (answer, error) {
	d.asking.Lock()
	defer d.asking.Unlock()
	select {
	case <-d.answer: // a late one, of a request that was given up
	default:
	}
	d.next++
	q.ID = d.next
	line, err := encode(q)
	if err != nil {
		return answer{}, err
	}
	if _, err := d.in.Write(line); err != nil {
		return answer{}, fmt.Errorf("disk %s: %s: %w", d.mountpoint, q.Do, ErrClosed)
	}
	timer := time.NewTimer(answerWithin)
	defer timer.Stop()
	for {
		select {
		case a := <-d.answer:
			if a.ID != q.ID {
				continue
			}
			if a.Busy {
				return a, fmt.Errorf("disk %s: %s: %w: %s", d.mountpoint, q.Do, ErrBusy, a.Error)
			}
			if a.Error != "" {
				return a, fmt.Errorf("disk %s: %s: %s", d.mountpoint, q.Do, a.Error)
			}
			return a, nil
		case <-d.ended:
			return answer{}, fmt.Errorf("disk %s: %s: %w", d.mountpoint, q.Do, ErrClosed)
		case <-ctx.Done():
			return answer{}, fmt.Errorf("disk %s: %s: %w", d.mountpoint, q.Do, ctx.Err())
		case <-timer.C:
			return answer{}, fmt.Errorf("disk %s: %s: no answer within %v", d.mountpoint, q.Do, answerWithin)
		}
	}
}

// Set replaces all that is in force. What is the same as before keeps what it has counted, and
// what waits for it. The zero Setting heals, and releases what waits.
func (d *Disk) Set(ctx context.Context, s Setting) error {
	if err := s.Validate(); err != nil {
		return err
	}
	_, err := d.ask(ctx, request{Do: doSet, Setting: &s})
	return err
}

// PowerFail takes back what was not synced. The program must have been killed before.
func (d *Disk) PowerFail(ctx context.Context, mode string, seed uint64) (Loss, error) {
	a, err := d.ask(ctx, request{Do: doFail, Mode: mode, Seed: seed})
	if err != nil || a.Loss == nil {
		return Loss{}, err
	}
	return *a.Loss, nil
}

// Stats reads what was counted.
func (d *Disk) Stats(ctx context.Context) (Stats, error) {
	a, err := d.ask(ctx, request{Do: doStats})
	if err != nil || a.Stats == nil {
		return Stats{}, err
	}
	return *a.Stats, nil
}

// Tripped receives once at each trip.
func (d *Disk) Tripped() <-chan struct{} { return d.tripped }

// Close heals and uncovers the directory, and ends the layer. It fails with [ErrBusy] where
// a program still uses the directory: the disk is healed then, and stays.
func (d *Disk) Close(ctx context.Context) error {
	if _, err := d.ask(ctx, request{Do: doClose}); err != nil {
		return err
	}
	_ = d.in.Close()
	timer := time.NewTimer(endWithin)
	defer timer.Stop()
	select {
	case <-d.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("disk %s: uncovered, but its layer did not end within %v", d.mountpoint, endWithin)
	}
}

// Recover detaches a mount whose layer was killed. It does nothing to any other directory.
func Recover(mountpoint string) error {
	var st unix.Stat_t
	if err := unix.Stat(mountpoint, &st); !errors.Is(err, unix.ENOTCONN) {
		return nil
	}
	if err := unix.Unmount(mountpoint, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the dead mount %s: %w", mountpoint, err)
	}
	return os.RemoveAll(filepath.Join(mountpoint, trashName)) // where it covered its own files
}

// Supported says by what a directory can be covered here, or why not and what to do.
func Supported() (string, error) {
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w: in a container, give it --device /dev/fuse --cap-add SYS_ADMIN", ErrUnsupported, err)
	}
	defer func() { _ = device.Close() }()
	dir, err := os.MkdirTemp("", "capsize-disk-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(dir) }()
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other", device.Fd(), os.Geteuid(), os.Getegid())
	if err := unix.Mount("capsize", dir, "fuse.capsize", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return "", fmt.Errorf("%w: mount: %w: it takes CAP_SYS_ADMIN, and in a container --device /dev/fuse and, where AppArmor is on, apparmor=unconfined", ErrUnsupported, err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return "", fmt.Errorf("unmount %s: %w", dir, err)
	}
	return "FUSE", nil
}
