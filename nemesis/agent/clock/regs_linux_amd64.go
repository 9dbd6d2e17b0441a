package clock

import "golang.org/x/sys/unix"

// programCounter says where a stopped thread will go on.
func programCounter(tid int) (uint64, error) {
	var regs unix.PtraceRegs
	err := unix.PtraceGetRegs(tid, &regs)
	return regs.Rip, err
}
