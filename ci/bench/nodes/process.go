package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// process is a server that was started here and is ended by its handle. Kill it always.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it is gone; err is set before
	err   error
}

// start runs a program, whose output goes to the file log.
//
// The kernel kills it should this program die without doing so. Its process group is its
// own, so that Ctrl-C in a terminal reaches this program alone, which then ends it.
func start(argv []string, log string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // the process has its own
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), log: log, ended: make(chan struct{})}
	p.cmd.Env = environment()
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// environment is this program's without what etcd would take for flags.
func environment() []string {
	var kept []string
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "ETCD_") {
			kept = append(kept, setting)
		}
	}
	return kept
}

// kill ends the process and waits until it is gone. Nothing that it holds is needed.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// alive returns nil, or why the process is gone, with the end of its log.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended by itself: %v\n%s", p.cmd.Path, p.err, tail(p.log, 2048))
	default:
		return nil
	}
}

// tail returns the last bytes of a file, as far as they can be read.
func tail(path string, bytes int) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	return data[max(0, len(data)-bytes):]
}
