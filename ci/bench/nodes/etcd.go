package main

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcd runs as it comes: all flags but addresses and directory have their defaults, among
// them a heartbeat every 100 ms and elections after 1 s at the earliest.
type etcd struct {
	program string
}

func (etcd) name() string { return "etcd" }

func (e etcd) command(members []member, self int, dir string) []string {
	var list []string
	for _, m := range members {
		list = append(list, m.name+"=http://"+m.peer)
	}
	me := members[self]
	return []string{
		e.program, "--name", me.name, "--data-dir", dir,
		"--listen-client-urls", "http://" + me.client, "--advertise-client-urls", "http://" + me.client,
		"--listen-peer-urls", "http://" + me.peer, "--initial-advertise-peer-urls", "http://" + me.peer,
		"--initial-cluster", strings.Join(list, ","), "--initial-cluster-token", "capsize-bench",
	}
}

func (etcd) leads(ctx context.Context, address string) (bool, error) {
	client, err := dialEtcd(address)
	if err != nil {
		return false, err
	}
	defer func() { _ = client.Close() }() // only asked a question
	status, err := client.Status(ctx, address)
	if err != nil {
		return false, err
	}
	return status.Leader == status.Header.MemberId, nil
}

// connect opens so many connections to each address, but no more than there are clients,
// and gives each client the next one.
func (etcd) connect(ctx context.Context, addresses []string, clients, connections int) ([]put, func(), error) {
	var open []*clientv3.Client
	disconnect := func() {
		for _, client := range open {
			_ = client.Close() // all puts are answered
		}
	}
	for i := range min(connections*len(addresses), clients) {
		address := addresses[i%len(addresses)]
		client, err := dialEtcd(address)
		if err != nil {
			disconnect()
			return nil, nil, err
		}
		open = append(open, client)
		if _, err := client.Status(ctx, address); err != nil { // a connection is made when it is first used
			disconnect()
			return nil, nil, fmt.Errorf("connect to %s: %w", address, err)
		}
	}
	puts := make([]put, clients)
	for i := range puts {
		client := open[i%len(open)]
		puts[i] = func(ctx context.Context, key, value string) error {
			_, err := client.Put(ctx, key, value)
			return err
		}
	}
	return puts, disconnect, nil
}

func dialEtcd(address string) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return client, nil
}
