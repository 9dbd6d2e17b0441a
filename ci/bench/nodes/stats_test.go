package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestAPercentileIsTheNearestRank(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		values []time.Duration
		p      float64
		want   time.Duration
	}{
		{nil, 99, 0},
		{[]time.Duration{7}, 1, 7},
		{[]time.Duration{7}, 100, 7},
		{[]time.Duration{1, 2}, 50, 1},
		{[]time.Duration{1, 2}, 51, 2},
		{[]time.Duration{1, 2, 3}, 50, 2},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.1, 100},
		{hundred, 100, 100},
	} {
		if got := percentile(c.values, c.p); got != c.want {
			t.Errorf("percentile(%v, %v) = %d, want %d", c.values, c.p, got, c.want)
		}
	}
}

func TestAPercentileIsTheLeastValueThatEnoughDoNotExceed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		values := make([]time.Duration, 1+random.IntN(300))
		for i := range values {
			values[i] = time.Duration(random.IntN(50))
		}
		slices.Sort(values)
		p := float64(1 + random.IntN(100))
		notAbove := func(limit time.Duration) (n float64) {
			for _, v := range values {
				if v <= limit {
					n++
				}
			}
			return n * 100
		}
		got, need := percentile(values, p), p*float64(len(values))
		if notAbove(got) < need || notAbove(got-1) >= need {
			t.Fatalf("percentile(%v, %v) = %d", values, p, got)
		}
	}
}

func TestASpreadHasTheMedianAndBothEnds(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 2}, spread{3, 2, 4}},
		{[]float64{9, 1, 2}, spread{2, 1, 9}},
		{[]float64{1, 2, 4, 100}, spread{3, 1, 100}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("spread of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

// A machine that was twice as slow in the second round changes no ratio, but would change
// the quotient of the medians.
func TestRatiosAreFormedWithinARound(t *testing.T) {
	ours, theirs := []float64{200, 100, 60}, []float64{100, 50, 40}
	if got, want := ratios(ours, theirs), (spread{2, 1.5, 2}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := ratios(theirs, ours), (spread{0.5, 0.5, 40.0 / 60}); got != want {
		t.Errorf("the other way round: got %v, want %v", got, want)
	}
}
