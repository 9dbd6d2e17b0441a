package clock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/arch/arm64/arm64asm"
	"golang.org/x/arch/x86/x86asm"
)

// A start of a function that cannot be moved.
var (
	errRelative = errors.New("an instruction that depends on its address")
	errControl  = errors.New("an instruction that leaves the function")
	errShort    = errors.New("the function is cut off")
)

func entryAMD64(_ []byte, from, to uint64) []byte {
	jump := []byte{0xe9, 0, 0, 0, 0}
	binary.LittleEndian.PutUint32(jump[1:], uint32(to-from-5))
	return jump
}

func relocateAMD64(code []byte, least int, from, to uint64) ([]byte, int, error) {
	n := 0
	if bytes.HasPrefix(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) { // endbr64, which x86asm does not know
		n = 4
	}
	for n < least {
		in, err := x86asm.Decode(code[n:], 64)
		if err != nil {
			return nil, 0, fmt.Errorf("instruction at %d: %w", n, err)
		}
		if in.PCRel != 0 || slices.ContainsFunc(in.Args[:], ripRelative) {
			return nil, 0, errRelative
		}
		switch in.Op {
		case x86asm.RET, x86asm.JMP, x86asm.CALL, x86asm.SYSCALL:
			return nil, 0, errControl
		}
		n += in.Len
	}
	if n > len(code) {
		return nil, 0, errShort
	}
	return append(bytes.Clone(code[:n]), entryAMD64(nil, to+uint64(n), from+uint64(n))...), n, nil
}

func ripRelative(arg x86asm.Arg) bool {
	mem, ok := arg.(x86asm.Mem)
	return ok && mem.Base == x86asm.RIP
}

// Landing pads: where a page is guarded (BTI), an indirect call must meet one of them.
const (
	btiC    = 0xd503245f
	btiJC   = 0xd50324df
	paciasp = 0xd503233f
	pacibsp = 0xd503237f
)

func branchARM64(from, to uint64) uint32 {
	return 0x14000000 | uint32((to-from)>>2)&0x03ffffff
}

// entryARM64 is a branch, behind a landing pad where the function has one. A pad that signs
// the return address gives way to one that does not: the displaced code will sign it.
func entryARM64(code []byte, from, to uint64) []byte {
	switch binary.LittleEndian.Uint32(code) {
	case btiC, btiJC, paciasp, pacibsp:
		pad := binary.LittleEndian.AppendUint32(nil, btiC)
		return binary.LittleEndian.AppendUint32(pad, branchARM64(from+4, to))
	}
	return binary.LittleEndian.AppendUint32(nil, branchARM64(from, to))
}

func relocateARM64(code []byte, least int, from, to uint64) ([]byte, int, error) {
	if len(code) < least {
		return nil, 0, errShort
	}
	for n := 0; n < least; n += 4 {
		in, err := arm64asm.Decode(code[n:])
		if err != nil {
			return nil, 0, fmt.Errorf("instruction at %d: %w", n, err)
		}
		for _, arg := range in.Args {
			if _, relative := arg.(arm64asm.PCRel); relative {
				return nil, 0, errRelative
			}
		}
		switch in.Op {
		case arm64asm.RET, arm64asm.BR, arm64asm.BLR, arm64asm.SVC, arm64asm.ERET:
			return nil, 0, errControl
		}
	}
	n := uint64(least)
	return binary.LittleEndian.AppendUint32(bytes.Clone(code[:n]), branchARM64(to+n, from+n)), least, nil
}
