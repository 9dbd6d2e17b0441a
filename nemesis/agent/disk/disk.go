// Package disk puts a layer with faults under a directory of one program: a FUSE file system
// that passes everything through to the directory it covers, and can make that storage fail
// as disks and machines do.
//
// [Mount] starts the layer as a process of its own (a program that calls [Serve]) and waits
// until the directory is covered. [Disk.Set] then replaces the whole set of faults, at one
// instant; [Disk.PowerFail] takes back what the program wrote and did not sync, which with
// killing the program is what a power failure does; [Disk.Stats] says how often each fault
// was met, which is the proof that it landed. [Disk.Close] heals and uncovers the directory.
//
// Writes go through to the directory at once; beside them the layer keeps an undo log of what
// is not synced yet: content and size of files, and names made, removed or moved, of any kind
// of file. What is removed lies in a hidden directory of the backing one until that is
// durable, and takes its space. The log is bounded in bytes, changes and files: before a bound
// all is synced for real and the log starts anew ([Stats].Forced tells), and so it is where
// one truncation destroys more than the log may hold. So nothing is lost when the layer
// itself is killed: [Recover] detaches the dead mount, and the directory below holds every
// byte. Where the control pipe ends for whatever reason, the layer heals itself: it drops
// faults and log, passes through as long as a program uses it, unmounts when none does, and
// ends. A killed caller leaves no broken disk.
//
// Not undone: owners, modes, times and extended attributes; and changes made behind the layer,
// which are left as they are and counted in [Loss].Kept.
//
// Not reached: reads that the kernel answers from its cache (a fault on reads meets a file
// when it is opened next), and syncfs(2), which FUSE does not pass on. Refused: files without
// a name (O_TMPFILE).
package disk

import (
	"errors"
	"fmt"
	"math"
	"path"
	"syscall"
	"time"
)

// Operations a fault can be on.
const (
	OnRead   = "read"
	OnWrite  = "write"
	OnFsync  = "fsync"
	OnCreate = "create" // and every other change of names
)

// Effects of a fault.
const (
	EffectError = "error" // the operation fails with Errno and changes nothing
	EffectLose  = "lose"  // an fsync fails, and content that it should have saved is never made durable, though later ones succeed (sizes and names then are)
	EffectTorn  = "torn"  // a write that crosses sectors leaves a prefix that ends at one, and fails with EIO
	EffectShort = "short" // a write of more than a byte takes only a part of its bytes, and says so
	EffectFlip  = "flip"  // one bit of what a read returns is wrong
	EffectDelay = "delay" // the operation takes Delay longer, and so long that Rate is kept
	EffectStall = "stall" // the operation waits until the fault is healed
)

// Power failure modes: what becomes of writes that were not synced.
const (
	PowerAll    = "all"    // each is lost
	PowerPrefix = "prefix" // of each file a random prefix of them survives, its last one torn at a sector
	PowerPages  = "pages"  // each 4 KiB page of them survives or not on its own
)

const (
	rulesMost  = 64
	delayMost  = 10 * time.Minute
	sectorSize = 512
	pageSize   = 4096
)

var (
	ErrUnsupported = errors.New("no file system in user space here")
	ErrInvalid     = errors.New("invalid disk fault")
	ErrClosed      = errors.New("the disk layer has ended")
	ErrBusy        = errors.New("the disk is in use")
)

// A Rule is one fault. It counts the operations that match it, and fires on one in
// 1/Probability of them, after the first After, at most Count times. It fires only where it
// has its effect: a torn write needs two sectors, a flipped bit something to read. Each
// operation is judged once, as it begins.
type Rule struct {
	ID          string        `json:"id"` // unique in its set
	On          string        `json:"on"`
	Files       string        `json:"files,omitempty"` // pattern (path.Match) of the file's name or path below the directory; empty is every file
	Effect      string        `json:"effect"`
	Errno       string        `json:"errno,omitempty"`       // EIO, ENOSPC, EROFS or EDQUOT; empty is EIO
	Probability float64       `json:"probability,omitempty"` // zero is 1
	After       int64         `json:"after,omitempty"`       // matching operations that pass first
	AfterBytes  int64         `json:"after_bytes,omitempty"` // bytes that matching operations move first: when a disk is full
	Count       int64         `json:"count,omitempty"`       // zero is without end
	Delay       time.Duration `json:"delay,omitempty"`
	Rate        int64         `json:"rate,omitempty"` // bytes in a second
}

// A Trip stops the disk at a chosen moment, so that the program can be killed in the middle of
// what it does: from the Nth fsync, or the write that reaches so many bytes, operations
// that change something wait until another setting. The counts start when it is set, and go
// on where it is set again with the same values.
type Trip struct {
	Fsyncs int64 `json:"fsyncs,omitempty"`
	Bytes  int64 `json:"bytes,omitempty"`
}

// A Setting is all that is in force on a disk. The zero Setting is a healthy one.
type Setting struct {
	Seed  uint64 `json:"seed,omitempty"` // of every random choice
	Rules []Rule `json:"rules,omitempty"`
	Trip  *Trip  `json:"trip,omitempty"`
}

// Met says how often a fault was met.
type Met struct {
	Matched int64  `json:"matched"` // operations it is on
	Fired   int64  `json:"fired"`
	Path    string `json:"path,omitempty"` // of the last file it fired on
}

// Stats are what a disk has counted since it was mounted, and its rules since they were set.
type Stats struct {
	Writes   int64          `json:"writes"`
	Bytes    int64          `json:"bytes"` // written
	Fsyncs   int64          `json:"fsyncs"`
	Unsynced int64          `json:"unsynced"` // bytes that a power failure would take now
	Forced   int64          `json:"forced"`   // times the undo log was full, and all was synced instead
	Tripped  bool           `json:"tripped"`
	Rules    map[string]Met `json:"rules,omitempty"`
}

// Loss is what a power failure took back.
type Loss struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	Names int   `json:"names"` // creations, removals and renames undone
	Kept  int   `json:"kept"`  // changes that could not be undone
}

// Options of a disk.
type Options struct {
	// Mountpoint is the directory to cover, Backing the one that holds the files. They may be
	// the same: then the layer lies over the files, and they are where they were when it ends.
	Mountpoint, Backing string
	// NoSync keeps fsyncs from the real disk. Power failures take the same, faster.
	NoSync bool
	// StrictNames makes names durable only by an fsync of their directory, which is all that
	// POSIX promises; a move between two directories is saved whole by that of either, with
	// all that was done in both before. Otherwise any fsync saves all names before it, as the
	// journals of ext4 and XFS do.
	StrictNames bool
}

// Validate says what is wrong with a setting. Its errors wrap [ErrInvalid].
func (s Setting) Validate() error {
	if len(s.Rules) > rulesMost {
		return fmt.Errorf("%w: %d rules: at most %d", ErrInvalid, len(s.Rules), rulesMost)
	}
	seen := map[string]bool{}
	for _, r := range s.Rules {
		if r.ID == "" || seen[r.ID] {
			return fmt.Errorf("%w: rule %q: each needs an id of its own", ErrInvalid, r.ID)
		}
		seen[r.ID] = true
		if err := r.validate(); err != nil {
			return fmt.Errorf("%w: rule %s: %w", ErrInvalid, r.ID, err)
		}
	}
	if t := s.Trip; t != nil && (t.Fsyncs < 0 || t.Bytes < 0 || t.Fsyncs == 0 && t.Bytes == 0) {
		return fmt.Errorf("%w: trip after %d fsyncs or %d bytes: one of them must be above zero", ErrInvalid, t.Fsyncs, t.Bytes)
	}
	return nil
}

// effectOn lists on which operations an effect makes sense.
var effectOn = map[string][]string{
	EffectError: {OnRead, OnWrite, OnFsync, OnCreate},
	EffectLose:  {OnFsync},
	EffectTorn:  {OnWrite},
	EffectShort: {OnWrite},
	EffectFlip:  {OnRead},
	EffectDelay: {OnRead, OnWrite, OnFsync, OnCreate},
	EffectStall: {OnRead, OnWrite, OnFsync, OnCreate},
}

var errnos = map[string]syscall.Errno{
	"": syscall.EIO, "EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EROFS": syscall.EROFS, "EDQUOT": syscall.EDQUOT,
}

func (r Rule) validate() error {
	known := false
	for _, on := range effectOn[r.Effect] {
		known = known || on == r.On
	}
	if !known {
		return fmt.Errorf("effect %q on %q: there is none", r.Effect, r.On)
	}
	if _, err := path.Match(r.Files, ""); err != nil {
		return fmt.Errorf("files %q: %w", r.Files, err)
	}
	if _, ok := errnos[r.Errno]; !ok {
		return fmt.Errorf("errno %q: it is EIO, ENOSPC, EROFS or EDQUOT", r.Errno)
	}
	if math.IsNaN(r.Probability) || r.Probability < 0 || r.Probability > 1 {
		return fmt.Errorf("probability %v: from 0 to 1", r.Probability)
	}
	if r.After < 0 || r.AfterBytes < 0 || r.Count < 0 || r.Rate < 0 {
		return errors.New("after, after_bytes, count and rate are never below zero")
	}
	if r.Delay < 0 || r.Delay > delayMost {
		return fmt.Errorf("delay %v: from 0 to %v", r.Delay, delayMost)
	}
	if r.Effect == EffectDelay && r.Delay == 0 && r.Rate == 0 {
		return errors.New("a delay needs delay or rate")
	}
	return nil
}
