package clock

import "golang.org/x/sys/unix"

// programCounter says where a stopped thread will go on.
func programCounter(tid int) (uint64, error) {
	const general = 1 // NT_PRSTATUS
	var regs unix.PtraceRegsArm64
	err := unix.PtraceGetRegSetArm64(tid, general, &regs)
	return regs.Pc, err
}
