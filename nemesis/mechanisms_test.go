package nemesis

import (
	"os"
	"testing"
)

func TestEveryAbilityHasItsMechanisms(t *testing.T) {
	for _, fault := range faults {
		about := fault.About()
		for _, ability := range about.Abilities() {
			for kind, m := range mechanisms[ability] {
				if m.How == "" {
					t.Errorf("%s needs %q, of which nothing is said for %s clusters", about.Name, ability, ClusterKinds[kind])
				}
			}
			if _, known := mechanisms[ability]; !known {
				t.Errorf("%s needs %q, of which nothing is said", about.Name, ability)
			}
		}
	}
}

func TestTheReferenceIsWhatTheRegistrySays(t *testing.T) {
	page, err := os.ReadFile("../docs/faults.md")
	if err != nil || string(page) != Reference() {
		t.Errorf("docs/faults.md is not up to date (%v): go run ./cmd/checker faults --markdown > docs/faults.md", err)
	}
}
