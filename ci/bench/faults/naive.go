package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	hosts "capsize/clusters/ssh"
)

// naive is the way of a script: connect, run a shell command, disconnect.
type naive struct {
	machines []hosts.Machine
	key      ssh.Signer
}

// everywhere runs a command on every node, all at once, and returns how long the last one took.
func (n *naive) everywhere(ctx context.Context, command func(node string) string) (time.Duration, error) {
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, machine := range n.machines {
		group.Go(func() error {
			if err := n.shell(ctx, machine, command(machine.Node)); err != nil {
				return fmt.Errorf("the naive way, on %s: %w", machine.Node, err)
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(began), err
}

// shell is one connection and one command. The handshake is the client's own default, without a
// search for keys or a look at DNS: as fast as a fresh connection can be.
func (n *naive) shell(ctx context.Context, machine hosts.Machine, command string) error {
	address := net.JoinHostPort(machine.Address, strconv.Itoa(int(machine.Port)))
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	conn, channels, requests, err := ssh.NewClientConn(plain, address, &ssh.ClientConfig{
		User: machine.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(n.key)}, HostKeyCallback: machine.HostKey,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		_ = plain.Close() // the handshake's error tells more
		return err
	}
	client := ssh.NewClient(conn, channels, requests)
	defer func() { _ = client.Close() }() // the command is over
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	if said, err := session.CombinedOutput(command); err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}

// rules is a table for nft that drops what other nodes send here.
func (n *naive) rules(enemies []string) string {
	var addresses []string
	for _, machine := range n.machines {
		if slices.Contains(enemies, machine.Node) {
			addresses = append(addresses, machine.Address)
		}
	}
	return fmt.Sprintf("table inet naive {\n chain input {\n  type filter hook input priority 0;\n  ip saddr { %s } drop\n }\n}\n", strings.Join(addresses, ", "))
}
