//go:build race

package linearizability

// The race detector makes a search ten times slower, and random histories of one
// goroutine have no race to find: a tenth of them will do.
const share = 10
