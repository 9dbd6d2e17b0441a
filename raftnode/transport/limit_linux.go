package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged makes the kernel give a connection up when what was sent stays
// unacknowledged for that long (tcp(7), TCP_USER_TIMEOUT). Under a partition the kernel
// would otherwise space its retransmissions further and further, to minutes, and traffic
// would not flow again for as long after the heal.
func limitUnacknowledged(conn net.Conn, limit time.Duration) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	}); err != nil {
		return err
	}
	return failed
}
