package clock

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

//go:generate ./hooks/generate.sh
var (
	//go:embed hooks/amd64.bin
	hookAMD64 []byte
	//go:embed hooks/arm64.bin
	hookARM64 []byte
)

// The layout of a hook: a name, the index of the slot in use (its lowest bit counts), two
// slots of two lines, room for displaced code, code, and a table of offsets.
const (
	magic     = "CAPCLK01"
	atIndex   = 8
	atSlots   = 16
	slotSize  = 48
	origSize  = 32
	tableSize = 24
	vdsoMost  = 1 << 20
	entryMost = 16 // bytes of a function that an entry may displace
)

// machine is what differs between processors.
type machine struct {
	elf  elf.Machine
	hook []byte
	// The functions of the vDSO: clock_gettime, gettimeofday and, where it exists, time.
	functions [3]string
	// syscall is code that asks the kernel itself: slower, but it needs nothing of the
	// function that it replaces.
	syscall []byte
	// entry returns the bytes that make a function at address from go to address to.
	entry func(code []byte, from, to uint64) []byte
	// relocate returns the first n or some more bytes of a function at address from, such
	// that at address to they do what they did and go on behind them; and how many.
	relocate func(code []byte, n int, from, to uint64) ([]byte, int, error)
}

var machines = map[string]machine{
	"amd64": {
		elf: elf.EM_X86_64, hook: hookAMD64,
		functions: [3]string{"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time"},
		syscall:   []byte{0xb8, 228, 0, 0, 0, 0x0f, 0x05, 0xc3}, // mov eax,228; syscall; ret
		entry:     entryAMD64, relocate: relocateAMD64,
	},
	"arm64": {
		elf: elf.EM_AARCH64, hook: hookARM64,
		functions: [3]string{"__kernel_clock_gettime", "__kernel_gettimeofday", ""},
		// mov x8,#113; svc #0; ret
		syscall: []byte{0x28, 0x0e, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6},
		entry:   entryARM64, relocate: relocateARM64,
	},
}

// offsets is the table at the end of a hook.
type offsets struct{ orig, hook, gettimeofday, time, late, end uint64 }

func (m machine) offsets() offsets {
	table := m.hook[len(m.hook)-tableSize:]
	at := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(table[4*i:])) }
	return offsets{at(0), at(1), at(2), at(3), at(4), at(5)}
}

// patch is one write into the image.
type patch struct {
	at    uint64
	bytes []byte
	was   []byte
	whole uint64 // bytes of whole instructions that are displaced
}

// plan says what to write where in the image of a vDSO; addresses are relative to its start.
type plan struct {
	at      uint64 // of the hook
	hook    []byte // with the displaced code in it
	entries []patch
	how     string
}

const (
	howVDSO    = "vDSO hook"
	howSyscall = "vDSO hook by system call"
)

// survey finds the functions of a vDSO. Those that it lacks are zero.
func (m machine) survey(image []byte) (at [3]uint64, err error) {
	if len(image) < 20 || !bytes.HasPrefix(image, []byte(elf.ELFMAG)) {
		return at, fmt.Errorf("%w: its image is no ELF file", ErrNoVDSO)
	}
	if elf.Class(image[elf.EI_CLASS]) == elf.ELFCLASS32 {
		return at, Err32Bit
	}
	if found := elf.Machine(binary.LittleEndian.Uint16(image[18:])); found != m.elf {
		return at, fmt.Errorf("%w: the program is for %v", ErrArchitecture, found)
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return at, fmt.Errorf("%w: %w", ErrNoVDSO, err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return at, fmt.Errorf("%w: its symbols: %w", ErrNoVDSO, err)
	}
	for _, symbol := range symbols {
		for i, name := range m.functions {
			if name != "" && symbol.Name == name && symbol.Value > 0 && symbol.Value < uint64(len(image)-entryMost) {
				at[i] = symbol.Value
			}
		}
	}
	if at[0] == 0 {
		return at, fmt.Errorf("%w: no function %s in it", ErrNoVDSO, m.functions[0])
	}
	return at, nil
}

// plan places the hook in the zeros that fill the last page of the image. Where the start
// of clock_gettime cannot be moved, or viaSyscall says so, the hook asks the kernel instead.
func (m machine) plan(image []byte, viaSyscall bool) (plan, error) {
	functions, err := m.survey(image)
	if err != nil {
		return plan{}, err
	}
	const align = 64 // a cache line
	at := (len(bytes.TrimRight(image, "\x00")) + align - 1) &^ (align - 1)
	if room := len(image) - at; room < len(m.hook) {
		return plan{}, fmt.Errorf("%w: %d bytes are free, %d needed", ErrNoRoom, max(room, 0), len(m.hook))
	}
	p := plan{at: uint64(at), hook: bytes.Clone(m.hook), how: howVDSO}
	to := m.offsets()
	targets := [3]uint64{to.hook, to.gettimeofday, to.time}
	for i, from := range functions {
		if from == 0 {
			continue
		}
		code := image[from:]
		entry := m.entry(code, from, p.at+targets[i])
		p.entries = append(p.entries, patch{
			at: from, bytes: entry, was: bytes.Clone(code[:len(entry)]), whole: uint64(len(entry)),
		})
	}
	first := &p.entries[0]
	orig, whole, err := m.relocate(image[first.at:], len(first.bytes), first.at, p.at+to.orig)
	if err != nil || len(orig) > origSize || viaSyscall {
		orig, p.how = m.syscall, howSyscall
	} else {
		first.whole = uint64(whole)
	}
	copy(p.hook[to.orig:], orig)
	return p, nil
}

// find looks for a hook in an image: where it is, or -1. One whose entries were not all
// written, because its maker was killed, does not count, and neither harms.
func (m machine) find(image []byte) (at int64, how string, err error) {
	i := bytes.Index(image, []byte(magic))
	if i < 0 {
		return -1, "", nil
	}
	to := m.offsets()
	found := image[i:]
	if len(found) < len(m.hook) || !bytes.Equal(found[to.hook:len(m.hook)], m.hook[to.hook:]) {
		return -1, "", ErrForeign
	}
	functions, err := m.survey(image)
	if err != nil {
		return -1, "", err
	}
	targets := [3]uint64{to.hook, to.gettimeofday, to.time}
	for j, from := range functions {
		if from != 0 && !bytes.HasPrefix(image[from:], m.entry(image[from:], from, uint64(i)+targets[j])) {
			return -1, "", nil
		}
	}
	how = howVDSO
	if bytes.HasPrefix(found[to.orig:], m.syscall) {
		how = howSyscall
	}
	return int64(i), how, nil
}

// findVDSO finds the mapping of the vDSO in the text of /proc/PID/maps (proc_pid_maps(5)).
func findVDSO(maps string) (start, end uint64, err error) {
	for text := range strings.Lines(maps) {
		fields := strings.Fields(text)
		if len(fields) != 6 || fields[5] != "[vdso]" {
			continue
		}
		low, high, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(low, 16, 63)
		end, err2 := strconv.ParseUint(high, 16, 63)
		if err1 != nil || err2 != nil || end <= start || end-start > vdsoMost {
			return 0, 0, fmt.Errorf("%w: its mapping reads %q", ErrNoVDSO, strings.TrimSpace(text))
		}
		return start, end, nil
	}
	return 0, 0, fmt.Errorf("%w: it is not mapped", ErrNoVDSO)
}

func (l line) append(to []byte) []byte {
	to = binary.LittleEndian.AppendUint64(to, uint64(l.real))
	to = binary.LittleEndian.AppendUint64(to, uint64(l.fake))
	return binary.LittleEndian.AppendUint64(to, l.rate)
}

func readLine(from []byte) line {
	return line{
		real: int64(binary.LittleEndian.Uint64(from)),
		fake: int64(binary.LittleEndian.Uint64(from[8:])),
		rate: binary.LittleEndian.Uint64(from[16:]),
	}
}
