package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// raftnode is ours, with etcd's times: a heartbeat every 100 ms, elections after 1 s at the
// earliest.
type raftnode struct {
	program string
	trace   bool
}

func (raftnode) name() string { return "raftnode" }

func (r raftnode) command(members []member, self int, dir string) []string {
	var list []string
	for _, m := range members {
		list = append(list, m.name+"="+m.peer)
	}
	me := members[self]
	argv := []string{
		r.program, "--name", me.name, "--data", dir, "--peers", strings.Join(list, ","),
		"--listen-client", me.client, "--listen-peer", me.peer, "--cluster-id", "capsize-bench",
		"--tick", "100ms", "--heartbeat-ticks", "1", "--election-ticks", "10",
	}
	if r.trace {
		argv = append(argv, "--trace", dir+".trace")
	}
	return argv
}

func (raftnode) leads(ctx context.Context, address string) (bool, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/status", nil)
	if err != nil {
		return false, err
	}
	body, err := exchange(http.DefaultClient, request)
	if err != nil {
		return false, err
	}
	var status struct {
		Role string `json:"role"`
	}
	if err := json.Unmarshal(body, &status); err != nil {
		return false, fmt.Errorf("status of %s: %w", address, err)
	}
	return status.Role == "leader", nil
}

// connect gives each client a connection of its own, which stays open: HTTP/1.1 carries one
// request at a time.
func (raftnode) connect(_ context.Context, addresses []string, clients, _ int) ([]put, func(), error) {
	transports := make([]*http.Transport, clients)
	puts := make([]put, clients)
	for i := range puts {
		transports[i] = &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true}
		client := &http.Client{Transport: transports[i]}
		url := "http://" + addresses[i%len(addresses)] + "/v1/kv/"
		puts[i] = func(ctx context.Context, key, value string) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodPut, url+key, strings.NewReader(`{"value":"`+value+`"}`))
			if err != nil {
				return err
			}
			_, err = exchange(client, request)
			return err
		}
	}
	return puts, func() {
		for _, t := range transports {
			t.CloseIdleConnections()
		}
	}, nil
}

// mostAnswerBytes is how much of an answer is read. All are short.
const mostAnswerBytes = 4 << 10

// exchange sends a request and reads the answer, so that the connection can be used again.
func exchange(client *http.Client, request *http.Request) ([]byte, error) {
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	body, err := io.ReadAll(io.LimitReader(response.Body, mostAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read the answer: %w", request.Method, request.URL, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", request.Method, request.URL, response.Status, body)
	}
	return body, nil
}
