package links

import (
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	doorPoll  = 10 * time.Millisecond  // how often a target that refuses is asked again
	doorLimit = 200 * time.Millisecond // for it to answer; a paused one with a full queue does not
	doorPause = 2 * time.Millisecond   // for a process that is being killed to lose all its sockets
)

// tend keeps the link of clients refusing connections while its target does.
//
// A client whose connection is refused knows that its request was not sent. A relay that
// takes the connection first, and finds then that nobody is behind it, leaves the client
// in doubt: each request to a killed node would be one of unknown outcome, and a history
// of those is beyond checking. Nodes need no such care: they send everything again.
//
// Where a direction is cut the link takes connections whatever its target does, and is
// silent: a refusal could not travel either.
func (l *link) tend() {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		now := l.proxy.gates.Load()
		cut := now.cut[l.forward] || now.cut[l.reverse]
		up := l.answers()
		if done := l.setDoor(up || cut); !done || !up && !cut {
			again.Reset(doorPoll)
		}
		select {
		case <-again.C:
		case <-now.over:
		case <-l.doubt:
			pause(l.proxy.ctx, doorPause)
		case <-l.proxy.ctx.Done():
			return
		}
	}
}

// suspect makes tend look at the target now: it ended a connection, or refused one.
func (l *link) suspect() {
	select {
	case l.doubt <- struct{}{}:
	default: // tend will look anyway, or nobody tends this link
	}
}

// answers reports whether the target takes connections. One that is merely slow does.
func (l *link) answers() bool {
	dialer := net.Dialer{Timeout: doorLimit}
	c, err := dialer.DialContext(l.proxy.ctx, "tcp", l.Target)
	if err == nil {
		_ = c.Close() // nothing was sent
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// setDoor opens or shuts the link's listener; it reports whether that is done. What the
// kernel had accepted and the link had not is reset.
func (l *link) setDoor(open bool) (done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case open == (l.tcp != nil) || l.proxy.ctx.Err() != nil:
		return true
	case !open:
		_ = l.tcp.Close() // only a listener that is closed already fails
		l.tcp = nil
		return true
	}
	listener, err := net.Listen("tcp", l.udp.LocalAddr().String())
	if err != nil {
		return false
	}
	l.tcp = listener.(*net.TCPListener)
	l.proxy.work.Go(func() { l.accept(listener.(*net.TCPListener)) })
	return true
}

// close ends the link's sockets. The proxy's context has ended, so no door opens again.
func (l *link) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tcp == nil {
		return l.udp.Close()
	}
	return errors.Join(l.tcp.Close(), l.udp.Close())
}
