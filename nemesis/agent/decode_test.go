package agent

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestDecodeRequestNamesWhatIsWrong(t *testing.T) {
	for line, want := range map[string]string{
		`{`:                                     "decode request",
		`{"id":1}`:                              "asks for 0 things",
		`{"id":1,"ping":{},"bye":{}}`:           "asks for 2 things",
		`{"id":1,"ping":{},"extra":1}`:          "unknown field",
		`{"id":1,"ping":{}} {}`:                 "more than one JSON value",
		`{"ping":{}}`:                           "id 0",
		`{"id":1,"start":{"process":{}}}`:       "process name",
		`{"id":1,"signal":{"process":""}}`:      "process name",
		`{"id":1,"hello":{"node":"n1"}}`:        "lease",
		`{"id":1,"hello":{"lease":5000000000}}`: "node name",
		`{"id":1,"hello":{"node":"n1","lease":5000000000,"links":[{"From":"n1","To":"n2"}]}}`: "not for n1 to serve",
		`{"id":1,"hello":{"node":"client","lease":5000000000}}`:                               `no node can be called "client"`,
		`{"id":1,"hello":{"node":"n1","peers":{"client":{}},"lease":5000000000}}`:             `no node can be called "client"`,
		`{"id":1,"hello":{"node":"n1","lease":5000000000,"clientPorts":[65536]}}`:             "client port 65536",
		`{"id":1,"start":{"process":{"name":"db","argv":[]}}}`:                                "argv is empty",
		`{"id":1,"start":{"process":{"name":"db","argv":["x"]}}}`:                             "log and dir",
		`{"id":1,"limits":{"process":""}}`:                                                    "process name",
		`{"id":1,"limits":{"process":"db","limit":{"cpu":0.001}}}`:                            "cpu 0.001",
		`{"id":1,"limits":{"process":"db","limit":{"cpu":1e300}}}`:                            "cpu 1e+300",
		`{"id":1,"limits":{"process":"db","limit":{"memory":-1}}}`:                            "memory -1",
		`{"id":1,"limits":{"process":"db","limit":{"files":-1}}}`:                             "-1 files",
		`{"id":1,"limits":{"process":"db","limit":{"writeRate":-1}}}`:                         "rates 0 and -1",
		`{"id":1,"disk":{"process":"db","rules":[{"id":"1","on":"write","effect":"lose"}]}}`:  `effect "lose" on "write"`,
		`{"id":1,"disk":{"process":"","rules":[]}}`:                                           "process name",
		`{"id":1,"hostClock":{"layers":[{"id":"1","rate":2}]}}`:                               "rate 2, want 0.9 to 1.1",
		`{"id":1,"hostClock":{"layers":[{"id":"1","rate":1},{"id":"1","rate":1}]}}`:           "two layers",
		`{"id":1,"power":{"process":"db","mode":"some"}}`:                                     `power failure "some"`,
		`{"id":1,"killAt":{"process":"db","fsyncs":1}}`:                                       "limit 0s",
		`{"id":1,"killAt":{"process":"db","limit":1000000000}}`:                               "trip after 0 fsyncs or 0 bytes",
		`{"id":1,"killAt":{"process":"db","fsyncs":1,"limit":1000000000,"mode":"x"}}`:         `power failure "x"`,
		`{"id":1,"damage":{"process":"db","dir":"/d","kind":"burn","mark":"1"}}`:              `damage "burn"`,
		`{"id":1,"damage":{"process":"db","dir":"/d","kind":"flip","mark":"../1"}}`:           `mark "../1"`,
		`{"id":1,"damage":{"process":"db","dir":"/d","kind":"flip","mark":"1","files":"["}}`:  `files "["`,
		`{"id":1,"damage":{"process":"db","dir":"/d","kind":"truncate","mark":"1"}}`:          "truncate by 0 bytes",
	} {
		if _, err := DecodeRequest([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	if r, err := DecodeRequest([]byte(`{"id":7,"ping":{}}`)); err != nil || r.ID != 7 || r.Ping == nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// Whatever decodes can be written and read again, and is the same.
func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"id":1,"ping":{}}`))
	f.Add([]byte(`{"id":2,"hello":{"version":1,"run":"r","node":"n1","dir":"/d","peers":{"n1":{"probe":"127.0.0.1:1"}},"clientPorts":[7080],"lease":5000000000}}`))
	f.Add([]byte(`{"id":3,"start":{"process":{"name":"db","argv":["/bin/db"],"dir":"/d","log":"/d/log"}}}`))
	f.Add([]byte(`{"id":4,"signal":{"process":"db","signal":"stop"}}`))
	f.Add([]byte(`{"id":5,"block":{"pairs":[{"from":"n1","to":"n2"}]}}`))
	f.Add([]byte(`{"id":5,"block":{"pairs":[{"from":"client","to":"n2"},{"from":"n2","to":"client"}]}}`))
	f.Add([]byte(`{"id":6,"probe":{"nonce":18446744073709551615,"client":"[::1]:1"}}`))
	f.Add([]byte(`{"id":8,"shape":{"pairs":[{"from":"n1","to":"n2","shape":{"delay":50000000,"loss":0.1,"rate":4096}}]}}`))
	f.Add([]byte(`{"id":6,"probe":{"nonce":18446744073709551615}}`))
	f.Add([]byte(`{"id":7,"bye":{"stop":true}}`))
	f.Add([]byte(`{"id":8,"limits":{"process":"db","limit":{"cpu":0.1,"memory":1048576,"files":3,"frozen":true}}}`))
	f.Add([]byte(`{"id":9,"clock":{"process":"db","layers":[{"id":"1","realtime":{"jump":3600000000000,"rate":1},"monotonic":{"rate":0}}]}}`))
	f.Add([]byte(`{"id":10,"disk":{"process":"db","rules":[{"id":"1/fsync","on":"fsync","effect":"error","errno":"EIO","probability":0.5}]}}`))
	f.Add([]byte(`{"id":11,"power":{"process":"db","mode":"prefix","seed":7}}`))
	f.Add([]byte(`{"id":12,"killAt":{"process":"db","fsyncs":3,"mode":"pages","limit":1000000000}}`))
	f.Add([]byte(`{"id":13,"damage":{"process":"db","dir":"/d","kind":"truncate","mark":"1","files":"*.wal","bytes":512}}`))
	f.Add([]byte(`{"id":14,"hostClock":{"layers":[{"id":"1","jump":-3600000000000,"rate":0.95}]}}`))
	f.Add([]byte(`{"id":-1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := DecodeRequest(line)
		if err != nil {
			return
		}
		if r.asked() != 1 {
			t.Fatalf("accepted %+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		r2, err := DecodeRequest(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		third, err := json.Marshal(r2)
		if err != nil || !reflect.DeepEqual(again, third) {
			t.Fatalf("%s became %s (%v)", again, third, err)
		}
	})
}

func FuzzDecodeProbe(f *testing.F) {
	f.Add(EncodeProbe(7, "n1"))
	f.Add([]byte("capsize-probe-1 "))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		nonce, from, err := DecodeProbe(datagram)
		if err == nil && string(EncodeProbe(nonce, from)) != string(datagram) {
			t.Fatalf("%x is not what it decodes to", datagram)
		}
	})
}
