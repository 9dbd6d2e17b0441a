// Package generators puts generators together: what one yields becomes part of what
// another yields. The words are Jepsen's. Each is as pure as what it is made of.
//
//	Stagger(time.Millisecond, Mix(seed, Share{9, reads}, Share{1, writes}))
//
// How fast: [Stagger], [Ramp], [Burst]. How long: [Limit], [TimeLimit], [Delay]. Who and
// when: [Mix], [Reserve], [Phases]. Where: [Roam].
package generators
