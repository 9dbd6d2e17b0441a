package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestTheCommandLineIsChecked(t *testing.T) {
	good := []string{"--name=n2", "--peers=n1=127.0.0.1:1,n2=127.0.0.1:2", "--listen-peer=127.0.0.1:2", "--listen-client=127.0.0.1:3", "--data=/tmp/x"}
	var out bytes.Buffer
	c, err := parse(good, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	least := time.Duration(c.ElectionTicks) * c.Tick
	if least != 500*time.Millisecond || time.Duration(c.HeartbeatTicks)*c.Tick != 50*time.Millisecond {
		t.Errorf("elections after %s, heartbeats every %s", least, time.Duration(c.HeartbeatTicks)*c.Tick)
	}
	for _, bad := range []struct{ flag, want string }{
		{"--name=n9", "n9, is not among the peers"},
		{"--name=", `name ""`},
		{"--peers=", "peers: none"},
		{"--peers=n1", `peer "n1": want name=host:port`},
		{"--peers=n2=127.0.0.1:1,n2=127.0.0.1:2", "n2 is listed twice"},
		{"--peers=n2=nowhere", "want host:port"},
		{"--listen-peer=nowhere", "want host:port"},
		{"--listen-client=", "want host:port"},
		{"--data=", "data directory"},
		{"--tick=0", "tick 0s"},
		{"--election-ticks=2", "want more than the 2 heartbeat ticks"},
		{"--heartbeat-ticks=0", "heartbeat ticks 0"},
		{"--cluster-id=", "cluster id"},
		{"--nonsense", "nonsense"},
		{"surplus", `unexpected argument "surplus"`},
	} {
		out.Reset()
		if _, err := parse(append(good[:len(good):len(good)], bad.flag), &out); err == nil {
			t.Errorf("%s is accepted", bad.flag)
		}
		if !strings.Contains(out.String(), bad.want) {
			t.Errorf("%s: says %q, want %q in it", bad.flag, out.String(), bad.want)
		}
	}
}
