//go:build !race

package checkers

// share divides the number of random histories.
const share = 1
