package nemesis

import (
	"testing"

	"capsize/nemesis/agent"
)

// Whatever an agent says, its session only refuses it.
func FuzzDispatch(f *testing.F) {
	f.Add([]byte(`{"id":1}`))
	f.Add([]byte(`{"id":1,"error":"x","gone":true}`))
	f.Add([]byte(`{"exited":{"process":"db","pid":1,"status":"exit status 1","tail":["x"]}}`))
	f.Add([]byte(`{"id":0,"error":"x"}`))
	f.Add([]byte(`nonsense`))
	f.Fuzz(func(t *testing.T, line []byte) {
		s := newSession("n1", nil)
		waiter := make(chan agent.Reply, 1)
		s.waiting[1] = waiter
		exits := 0
		err := s.dispatch(line, func(agent.Exited) { exits++ })
		if answered := len(waiter); answered+exits > 1 || err != nil && answered+exits > 0 {
			t.Fatalf("%q: %d answers, %d exits, %v", line, answered, exits, err)
		}
	})
}
