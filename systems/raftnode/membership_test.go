package raftnode

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"capsize/histories"
	"capsize/systems"
)

// led is a leader whose answers to changes are a script: "cut" loses the answer of a change
// that is made.
func led(t *testing.T, script ...string) (c *loopback, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var bodies []string
	list := `{"members":[{"id":1,"name":"n1","voter":true},{"id":2,"name":"n2","voter":true}]}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		say := func(code int, body string) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body) // the client may be gone
		}
		switch {
		case r.URL.Path == "/v1/status":
			say(200, `{"id":1,"term":2,"role":"leader","leader":"n1"}`)
		case r.Method == http.MethodGet:
			say(200, list)
		default:
			body, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(body))
			word := script[min(len(bodies), len(script))-1]
			if word == "cut" {
				list = `{"members":[{"id":1,"name":"n1","voter":true}]}`
			}
			act(w, r, word)
		}
	}))
	t.Cleanup(server.Close)
	return &loopback{nodes: []string{"n1"}, listen: map[string]string{"n1" + clientPort: server.Listener.Addr().String(), "n2" + peerPort: "peer:2"}},
		func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(bodies)
		}
}

func TestTheOutcomeOfAChangeOfMembers(t *testing.T) {
	remove := systems.MemberChange{Op: systems.RemoveMember, Node: "n2"}
	for _, c := range []struct {
		what   string
		script []string
		want   histories.Type
		times  int // that it is asked for; 0 for any number
	}{
		{"made at once", []string{"ok"}, histories.OK, 1},
		{"refused, then made", []string{"refuse", "refuse", "ok"}, histories.OK, 3},
		{"made, the answer lost: it is not asked for again", []string{"cut", "refuse"}, histories.OK, 1},
		{"unknown, then made", []string{"timeout", "ok"}, histories.OK, 2},
		{"refused until the end", []string{"refuse"}, histories.Fail, 0},
		{"unknown, then refused until the end", []string{"timeout", "refuse"}, histories.Info, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			cluster, asked := led(t, c.script...)
			s, err := New(Options{Binary: "raftnode"})
			if err != nil {
				t.Fatal(err)
			}
			limit := 10 * time.Second
			if c.times == 0 {
				limit = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			err = s.Change(ctx, cluster, remove)
			if got := histories.Outcome(err); got != c.want {
				t.Errorf("outcome %v (%v), want %v", got, err, c.want)
			}
			if got := asked(); c.times > 0 && len(got) != c.times {
				t.Errorf("it was asked for %d times, want %d: %q", len(got), c.times, got)
			}
		})
	}
}

func TestAReplacementIsOneRequestWithTheAddress(t *testing.T) {
	cluster, asked := led(t, "ok")
	s, err := New(Options{Binary: "raftnode"})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Change(t.Context(), cluster, systems.MemberChange{Op: systems.RemoveMember, Node: "n2"}, systems.MemberChange{Op: systems.AddVoter, Node: "n2"})
	want := `{"changes":[{"op":"remove","name":"n2"},{"op":"add","name":"n2","address":"peer:2"}]}`
	if got := asked(); err != nil || len(got) != 1 || strings.TrimSpace(got[0]) != want {
		t.Errorf("asked %q, %v; want %s", got, err, want)
	}
}
