package invariants

import (
	"encoding/json"
	"strings"
	"testing"
)

func conf(t *testing.T, text string) *Conf {
	t.Helper()
	return parse(t, "n1 boot conf="+text)[0].Conf
}

func TestConfigurationsFollowEachOtherWhereTheirQuorumsMeet(t *testing.T) {
	for _, test := range []struct{ before, after, says string }{
		{"n1,n2,n3", "n1,n2,n3", ""},
		{"n1,n2,n3", "n1,n2,n3+n4,n5", ""},
		{"n1,n2,n3", "n1,n2,n3,n4", ""},
		{"n1,n2,n3", "n1,n2", ""},
		{"n1,n2,n3", "n1,n2,n4", "more than one voter changes at once"},
		{"n1,n2,n3", "n4,n5|n1,n2,n3", ""},
		{"n1,n2,n3", "n4,n5|n1,n2", "the outgoing half is not the voters of before"},
		{"n4,n5|n1,n2,n3", "n4,n5", ""},
		{"n4,n5|n1,n2,n3", "n4", "a joint configuration is left for other voters than its incoming ones"},
		{"n4,n5|n1,n2,n3", "n6|n4,n5", "one joint configuration follows another"},
	} {
		if says := conf(t, test.after).follows(conf(t, test.before)); says != test.says {
			t.Errorf("%s after %s: %q, want %q", test.after, test.before, says, test.says)
		}
	}
}

func TestAJointConfigurationNeedsAMajorityOfBothHalves(t *testing.T) {
	for _, test := range []struct {
		conf, agree string
		want        bool
	}{
		{"n1", "n1", true},
		{"n1,n2", "n1", false},
		{"n1,n2,n3", "n1,n3", true},
		{"n1,n2,n3+n4,n5", "n1,n4,n5", false},
		{"n1,n2,n3|n4", "n1,n2", false},
		{"n1,n2,n3|n4", "n1,n4", false},
		{"n1,n2,n3|n4", "n1,n2,n4", true},
	} {
		if got := conf(t, test.conf).quorum(func(node string) bool { return strings.Contains(test.agree, node) }); got != test.want {
			t.Errorf("%s of %s: %v", test.agree, test.conf, got)
		}
	}
}

func TestAReportIsReadableAsJSON(t *testing.T) {
	line := "n3 ackSend to=n2 t=2 i=2\n"
	r := check(parse(t, mutate(t, story, line, line+"n3 ackSend to=n2 t=2 i=9\n")), Options{})
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{`"invariant":"I13","name":"persist before send"`, `"ev":"ackSend","t":2,"i":9,"to":"n2"`, `"checks":{"I1":2,`} {
		if !strings.Contains(string(data), says) {
			t.Errorf("%s does not say %s", data, says)
		}
	}
}
