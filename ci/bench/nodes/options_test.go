package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDefaultsAreWhatTheProjectPromisesToMeasure(t *testing.T) {
	o, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.clients, []int{1, 16, 64, 256}) || o.trace || o.spread || o.valueBytes != 16 {
		t.Errorf("got %+v", o)
	}
}

func TestQuickShortensOnlyWhatTheCommandLineLeavesOpen(t *testing.T) {
	whole, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := parse([]string{"-quick", "-window", "7s"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if quick.window != 7*time.Second {
		t.Errorf("-window 7s became %s", quick.window)
	}
	if quick.rounds >= whole.rounds || quick.warmup >= whole.warmup || quick.idle >= whole.idle {
		t.Errorf("quick %+v is no shorter than %+v", quick, whole)
	}
}

func TestWrongFlagsAreRefusedWithWhatIsWanted(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-nonsense", "not defined"},
		{"more", `unexpected argument "more"`},
		{"-rounds 0", "want 1 to 100"},
		{"-rounds 101", "want 1 to 100"},
		{"-rounds many", "invalid value"},
		{"-window 99ms", "want 100ms to 1m"},
		{"-window 61s", "want 100ms to 1m"},
		{"-warmup -1s", "want 0s to 1m"},
		{"-idle 6m", "want 0s to 5m"},
		{"-value-bytes 0", "want 1 to 65536"},
		{"-value-bytes 65537", "want 1 to 65536"},
		{"-to followers", "want leader or all"},
		{"-clients 1,,2", "-clients"},
		{"-clients 0", "from 1 to 4096"},
		{"-clients 4097", "from 1 to 4096"},
		{"-clients 16,16", "16 is listed twice"},
		{"-etcd-connections x", "-etcd-connections"},
		{"-etcd-connections 257", "from 1 to 256"},
	} {
		var said bytes.Buffer
		if _, err := parse(strings.Fields(c.args), &said); err == nil {
			t.Errorf("%s is accepted", c.args)
		} else if !strings.Contains(said.String(), c.want) {
			t.Errorf("%s: said %q, want %q in it", c.args, said.String(), c.want)
		}
	}
}

func TestTheOutermostFlagsAreAccepted(t *testing.T) {
	for _, args := range []string{
		"-rounds 1 -window 100ms -warmup 0s -idle 0s -value-bytes 1 -clients 1 -etcd-connections 1",
		"-rounds 100 -window 1m -warmup 1m -idle 5m -value-bytes 65536 -clients 4096 -etcd-connections 256",
		"-to all -trace",
	} {
		if _, err := parse(strings.Fields(args), io.Discard); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}
