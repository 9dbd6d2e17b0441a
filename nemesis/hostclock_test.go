package nemesis

import (
	"strings"
	"testing"
	"time"

	"capsize/nemesis/agent"
)

func TestWhatAHostsClockDidIsHeldAgainstWhatItShould(t *testing.T) {
	for name, c := range map[string]struct {
		layer  agent.HostClockLayer
		reply  agent.HostClocksReply
		beside bool // other steps
		wrong  string
	}{
		"a jump":                   {agent.HostClockLayer{Jump: time.Hour, Rate: 1}, agent.HostClocksReply{Before: time.Second, After: time.Hour + time.Second, Rate: 1}, false, ""},
		"a jump that is too short": {agent.HostClockLayer{Jump: time.Hour, Rate: 1}, agent.HostClocksReply{After: time.Minute, Rate: 1}, false, "moved by +1m0s, not by 1h0m0s"},
		"a rate":                   {agent.HostClockLayer{Rate: 0.93333}, agent.HostClocksReply{Rate: 0.9333}, false, ""},
		"a rate that did not land": {agent.HostClockLayer{Rate: 1.05}, agent.HostClocksReply{Rate: 1}, false, "runs at 1, not at 1.05"},
		"a rate beside others":     {agent.HostClockLayer{Rate: 1.05}, agent.HostClocksReply{Rate: 1.1}, true, ""},
	} {
		err := hostClockLanded(c.layer, c.reply, !c.beside)
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for reply, healed := range map[agent.HostClocksReply]bool{
		{Before: time.Hour, After: time.Millisecond, Rate: 1}: true,
		{Before: time.Hour, After: time.Second, Rate: 1}:      false,
		{Before: time.Hour, Rate: 1.05}:                       false,
	} {
		if hostClockHealed(reply) != healed {
			t.Errorf("%+v is healed: %v", reply, !healed)
		}
	}
}
