//go:build !race

package linearizability

// share divides the number of random histories.
const share = 1
