//go:build !race

// Package race says whether the race detector is on: long tests do less then, and CI runs
// them without it as well.
package race

// Enabled is true where the race detector is on.
const Enabled = false
