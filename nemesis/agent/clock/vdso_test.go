package clock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/arch/arm64/arm64asm"
	"golang.org/x/arch/x86/x86asm"
)

func TestTheHooksAreWhatTheirSourcesMake(t *testing.T) {
	for _, tool := range []string{"x86_64-linux-gnu-as", "aarch64-linux-gnu-as", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("no assembler: ", err)
		}
	}
	dir := t.TempDir()
	if out, err := exec.Command("./hooks/generate.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, m := range machines {
		fresh, err := os.ReadFile(filepath.Join(dir, name+".bin"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(fresh, m.hook) {
			t.Errorf("hooks/%s.bin is not what hooks/%s.S makes: go generate", name, name)
		}
	}
}

func TestTheHooksAreLaidOutAsTheirTableSays(t *testing.T) {
	for name, m := range machines {
		to := m.offsets()
		if to.orig != atSlots+2*slotSize || to.hook != to.orig+origSize || to.late <= to.hook || to.end <= to.late || to.gettimeofday < to.end || to.end > uint64(len(m.hook)) {
			t.Fatalf("%s: %+v", name, to)
		}
		if string(m.hook[:len(magic)]) != magic || readLine(m.hook[atSlots:]) != identity || readLine(m.hook[atSlots+slotSize+slotSize/2:]) != identity {
			t.Errorf("%s does not begin as the kernel's clock", name)
		}
		// Every instruction of the hook decodes, and the last one returns.
		var returns bool
		for at := to.hook; at < to.end; {
			if name == "amd64" {
				in, err := x86asm.Decode(m.hook[at:], 64)
				if err != nil {
					t.Fatalf("%s at %d: %v", name, at, err)
				}
				at, returns = at+uint64(in.Len), in.Op == x86asm.RET
				continue
			}
			in, err := arm64asm.Decode(m.hook[at:])
			if err != nil {
				t.Fatalf("%s at %d: %v", name, at, err)
			}
			at, returns = at+4, in.Op == arm64asm.RET
		}
		if !returns {
			t.Errorf("%s: the hook does not end with a return", name)
		}
	}
}

func words(ws ...uint32) (b []byte) {
	for _, w := range ws {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func TestAPrologueIsMovedOrRefused(t *testing.T) {
	const nop, addImm, adr, ret = 0xd503201f, 0x91000400, 0x10000000, 0xd65f03c0
	for name, c := range map[string]struct {
		machine string
		code    []byte
		whole   int
		err     error
	}{
		"push, mov":           {"amd64", []byte("\x55\x48\x89\xe5\x90\x90\x90\x90"), 5, nil},
		"endbr64, push":       {"amd64", []byte("\xf3\x0f\x1e\xfa\x55\x48\x89\xe5"), 5, nil},
		"endbr64, mov":        {"amd64", []byte("\xf3\x0f\x1e\xfa\x48\x89\xe5\x90"), 7, nil},
		"lea of rip":          {"amd64", []byte("\x48\x8d\x05\x01\x00\x00\x00\x90"), 0, errRelative},
		"short jump":          {"amd64", []byte("\x85\xff\x74\x05\x90\x90\x90\x90"), 0, errRelative},
		"return":              {"amd64", []byte("\x31\xc0\xc3\x90\x90\x90\x90\x90"), 0, errControl},
		"system call":         {"amd64", []byte("\x89\xf8\x0f\x05\xc3\x90\x90\x90"), 0, errControl},
		"add":                 {"arm64", words(addImm, nop), 4, nil},
		"bti, add":            {"arm64", words(btiC, addImm), 8, nil},
		"paciasp, add":        {"arm64", words(paciasp, addImm), 8, nil},
		"adr":                 {"arm64", words(adr, nop), 0, errRelative},
		"paciasp, adr":        {"arm64", words(paciasp, adr), 0, errRelative},
		"return at once":      {"arm64", words(ret, nop), 0, errControl},
		"cut off":             {"arm64", words(btiC), 0, errShort},
		"branch if not equal": {"arm64", words(0x54000041, nop), 0, errRelative},
	} {
		t.Run(name, func(t *testing.T) {
			m := machines[c.machine]
			const from, orig, hook = 0x600, 0x1000, 0x1020
			entry := m.entry(c.code, from, hook)
			moved, whole, err := m.relocate(c.code, len(entry), from, orig)
			if !errors.Is(err, c.err) || whole != c.whole {
				t.Fatalf("moved %d bytes, %v", whole, err)
			}
			if err != nil {
				return
			}
			if !bytes.HasPrefix(moved, c.code[:whole]) {
				t.Errorf("moved % x", moved)
			}
			if to := jumpsTo(t, c.machine, moved[whole:], orig+int64(whole)); to != from+int64(whole) {
				t.Errorf("goes on at %#x", to)
			}
			pad := 0
			if c.machine == "arm64" && len(entry) == 8 {
				pad = 4
				if binary.LittleEndian.Uint32(entry) != btiC {
					t.Error("the entry has no landing pad")
				}
			}
			if to := jumpsTo(t, c.machine, entry[pad:], from+int64(pad)); to != hook {
				t.Errorf("the entry goes to %#x", to)
			}
		})
	}
}

func jumpsTo(t *testing.T, machine string, code []byte, at int64) int64 {
	t.Helper()
	if machine == "amd64" {
		in, err := x86asm.Decode(code, 64)
		if err != nil || in.Op != x86asm.JMP {
			t.Fatalf("%v, %v", in, err)
		}
		return at + int64(in.Len) + int64(in.Args[0].(x86asm.Rel))
	}
	in, err := arm64asm.Decode(code)
	if err != nil || in.Op != arm64asm.B {
		t.Fatalf("%v, %v", in, err)
	}
	return at + int64(in.Args[0].(arm64asm.PCRel))
}

func TestOnlyAVDSOOfThisMachineIsTaken(t *testing.T) {
	header := func(class elf.Class, m elf.Machine) []byte {
		b := make([]byte, 4096)
		copy(b, elf.ELFMAG)
		b[elf.EI_CLASS] = byte(class)
		binary.LittleEndian.PutUint16(b[18:], uint16(m))
		return b
	}
	m := machines["amd64"]
	for name, c := range map[string]struct {
		image []byte
		want  error
	}{
		"nothing":              {nil, ErrNoVDSO},
		"no ELF":               {make([]byte, 4096), ErrNoVDSO},
		"32 bits":              {header(elf.ELFCLASS32, elf.EM_386), Err32Bit},
		"x32":                  {header(elf.ELFCLASS32, elf.EM_X86_64), Err32Bit},
		"another architecture": {header(elf.ELFCLASS64, elf.EM_AARCH64), ErrArchitecture},
		"only a header":        {header(elf.ELFCLASS64, elf.EM_X86_64), ErrNoVDSO},
	} {
		if _, err := m.plan(c.image, false); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheMappingOfTheVDSOIsFound(t *testing.T) {
	const text = "7ffd0000-7ffd2000 r--p 00000000 00:00 0    [vvar]\n7ffd2000-7ffd4000 r-xp 00000000 00:00 0    [vdso]\n"
	if from, to, err := findVDSO(text); from != 0x7ffd2000 || to != 0x7ffd4000 || err != nil {
		t.Errorf("%#x-%#x, %v", from, to, err)
	}
	for _, wrong := range []string{"", "1-2 r-xp 0 0 0\n", "2-1 r-xp 0 0 0 [vdso]", "0-ffffffff r-xp 0 0 0 [vdso]", "x-y r-xp 0 0 0 [vdso]"} {
		if _, _, err := findVDSO(wrong); !errors.Is(err, ErrNoVDSO) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestALineIsContinuousWhereItsRateChanges(t *testing.T) {
	l, kernel := identity, int64(1e18)
	for _, rate := range []float64{0, 0.1, 0.5, 1, 3, 10} {
		kernel += int64(time.Hour)
		next, err := l.adjusted(Adjust{Rate: new(rate)}, kernel)
		if err != nil || next.at(kernel) != l.at(kernel) {
			t.Fatalf("rate %v: %d, before %d, %v", rate, next.at(kernel), l.at(kernel), err)
		}
		passed := next.at(kernel+int64(time.Second)) - next.at(kernel)
		if math.Abs(float64(passed)-rate*1e9) > 2 {
			t.Errorf("rate %v: %d ns in a second", rate, passed)
		}
		l = next
	}
	if got := scale(-3, one/2); got != -2 {
		t.Errorf("-1.5 is rounded to %d, not down as the hook does", got)
	}
}

func FuzzFindVDSO(f *testing.F) {
	f.Add("7ffd2000-7ffd4000 r-xp 00000000 00:00 0    [vdso]\n")
	f.Fuzz(func(t *testing.T, text string) {
		if from, to, err := findVDSO(text); err == nil && (to <= from || to-from > vdsoMost) {
			t.Errorf("%#x-%#x", from, to)
		}
	})
}

func FuzzPlan(f *testing.F) {
	if image, err := os.ReadFile("/proc/self/exe"); err == nil {
		f.Add(image[:4096])
	}
	f.Add([]byte(elf.ELFMAG))
	f.Fuzz(func(t *testing.T, image []byte) {
		for name, m := range machines {
			if p, err := m.plan(image, false); err == nil && int(p.at)+len(p.hook) > len(image) {
				t.Errorf("%s: the hook is placed outside", name)
			}
			if at, _, err := m.find(image); err == nil && at >= 0 && int(at)+len(m.hook) > len(image) {
				t.Errorf("%s: a hook is found outside", name)
			}
		}
	})
}

func FuzzRelocate(f *testing.F) {
	f.Add([]byte("\xf3\x0f\x1e\xfa\x55\x48\x89\xe5"))
	f.Add(words(paciasp, 0x91000400))
	f.Fuzz(func(t *testing.T, code []byte) {
		if len(code) < entryMost {
			return
		}
		for name, m := range machines {
			entry := m.entry(code, 0x600, 0x1000)
			moved, whole, err := m.relocate(code, len(entry), 0x600, 0x1000)
			if err == nil && (whole < len(entry) || whole > len(code) || !bytes.HasPrefix(moved, code[:whole])) {
				t.Errorf("%s: %d bytes moved for %d", name, whole, len(entry))
			}
		}
	})
}
