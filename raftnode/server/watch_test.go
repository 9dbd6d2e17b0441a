package server

import (
	"strings"
	"testing"
	"time"
)

func TestAWatchTellsChangesAsTheyCome(t *testing.T) {
	c := alone(t)
	run(t, c)
	at := "http://" + c.ListenClient + "/v1/"
	eventually(t, "a leader", func() bool { return call(t, "PUT", at+"kv/x", `{"value": "1"}`).code == 200 })
	if got := call(t, "GET", at+"watch?after=0&from=x&to=y", ""); got != (reply{200, `{"changes":[{"key":"x","value":"1","revision":1}],"revision":1}`}) {
		t.Errorf("what was there: %+v", got)
	}
	came := make(chan reply)
	go func() { came <- call(t, "GET", at+"watch?after=1&from=x&to=y", "", HeaderTimeout, "9s") }()
	call(t, "PUT", at+"kv/other", `{"value": "no matter"}`)
	select {
	case got := <-came:
		t.Errorf("before there was a change: %+v", got)
	case <-time.After(50 * time.Millisecond):
	}
	call(t, "DELETE", at+"kv/x", "")
	if got := <-came; got != (reply{200, `{"changes":[{"key":"x","value":null,"revision":3}],"revision":3}`}) {
		t.Errorf("what came: %+v", got)
	}
	if got := call(t, "GET", at+"watch?after=3", "", HeaderTimeout, "20ms"); got != (reply{200, `{"changes":[],"revision":3}`}) {
		t.Errorf("when nothing comes: %+v", got)
	}
	for _, query := range []string{"", "after=x", "after=-1"} {
		if got := call(t, "GET", at+"watch?"+query, ""); got.code != 400 || !strings.Contains(got.body, "the revision after which to begin") {
			t.Errorf("%q: %+v", query, got)
		}
	}
}

func TestAWatchSaysWhatItHasForgotten(t *testing.T) {
	c := alone(t)
	stop := run(t, c)
	at := "http://" + c.ListenClient + "/v1/"
	eventually(t, "a leader", func() bool { return call(t, "PUT", at+"kv/x", `{"value": "1"}`).code == 200 })
	if got := call(t, "POST", at+"snapshot", ""); got.code != 200 {
		t.Fatalf("%+v", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	run(t, c)
	eventually(t, "a leader", func() bool { return call(t, "PUT", at+"kv/x", `{"value": "2"}`).code == 200 })
	got := call(t, "GET", at+"watch?after=0", "")
	if got.code != 410 || !strings.Contains(got.body, `"since":1`) || !strings.Contains(got.body, `"outcome":"definite"`) {
		t.Errorf("%+v", got)
	}
	if got := call(t, "GET", at+"watch?after=1", ""); got.code != 200 || !strings.Contains(got.body, `"revision":2`) {
		t.Errorf("%+v", got)
	}
}

// A node without a leader answers a stale read at once, and a linearizable one not at all.
func TestAStaleReadNeedsNoLeader(t *testing.T) {
	c := alone(t)
	c.Peers = append(c.Peers, Peer{"n2", freeAddress(t)}, Peer{"n3", freeAddress(t)})
	run(t, c)
	at := "http://" + c.ListenClient + "/v1/"
	if got := call(t, "GET", at+"kv/x?consistency=stale", ""); got != (reply{200, `{"value":null,"revision":0}`}) {
		t.Errorf("%+v", got)
	}
	if got := call(t, "GET", at+"range?consistency=stale", ""); got != (reply{200, `{"entries":[],"more":false,"revision":0}`}) {
		t.Errorf("%+v", got)
	}
	if got := call(t, "GET", at+"kv/x", "", HeaderTimeout, "50ms"); got.code != 504 && got.code != 503 {
		t.Errorf("%+v", got)
	}
	if got := call(t, "GET", at+"kv/x?consistency=strong", ""); got.code != 400 || !strings.Contains(got.body, "want linearizable or stale") {
		t.Errorf("%+v", got)
	}
}
