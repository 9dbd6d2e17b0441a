package main

import (
	"math"
	"slices"
	"time"
)

// percentile returns the smallest value that at least p percent of all values do not
// exceed (nearest rank), 0 of none. sorted must be in rising order, p in (0, 100].
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// spread is what several rounds say of one number.
type spread struct {
	median, least, most float64
}

// spreadOf sums up values, of which there must be one at least. The median of an even
// number of values is the mean of the middle two.
func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{median: (sorted[(n-1)/2] + sorted[n/2]) / 2, least: sorted[0], most: sorted[n-1]}
}

// ratios divides ours by theirs, round by round: a round's two measurements met the same
// machine, those of different rounds may not have.
func ratios(ours, theirs []float64) spread {
	quotients := make([]float64, len(ours))
	for i := range ours {
		quotients[i] = ours[i] / theirs[i]
	}
	return spreadOf(quotients)
}
