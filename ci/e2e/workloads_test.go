package e2e

import "testing"

// Every workload runs against the reference node, on loopback and with faults, and finds
// something to judge.
func TestEveryWorkloadIsJudged(t *testing.T) {
	for workload, checker := range map[string]string{
		"contention": "linearizability", "stale-reads": "sessions", "members-register": "linearizability",
		"list-append": "linearizability", "set": "elements", "counter": "linearizability", "queue": "elements", "lock": "fencing",
		"bank": "bank-total", "ranges": "linearizability", "watch": "watch", "list-transactions": "transactions",
		"register-transactions": "transactions", "unique-ids": "unique-ids",
	} {
		t.Run(workload, func(t *testing.T) {
			c := newChecker(t, "run", "--workload="+workload, "--load=bursts", "--time-limit=5s", "--nemesis=kill,partition", "--nemesis-interval=1s", "--seed=5")
			if status := c.run(t); status != 0 {
				t.Fatalf("exit status %d\n%s", status, c.out.String())
			}
			for _, result := range readVerdict(t, c.runDir(t)).Results {
				if result.Checker == checker {
					return
				}
			}
			t.Errorf("%s was not checked", checker)
		})
	}
}
