package linearizability

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"capsize/checkers"
)

// budget is the time and memory that searches may use. Deciding linearizability is
// NP-complete in general, so each search must be one that can be ended: its context is
// cancelled, with the reason as the cause.
type budget struct {
	memory  uint64
	heapMax uint64
	cancel  context.CancelFunc
	ctx     context.Context

	mu       sync.Mutex
	running  []*searching // the oldest first
	watching sync.WaitGroup
}

type searching struct{ end context.CancelCauseFunc }

// newBudget starts to count. The caller must close it. A timeout or memory of 0 is no
// limit.
func newBudget(ctx context.Context, limits checkers.Limits) *budget {
	b := &budget{memory: limits.Memory}
	if limits.Timeout > 0 {
		b.ctx, b.cancel = context.WithTimeoutCause(ctx, limits.Timeout, fmt.Errorf("the time budget of %s ended", limits.Timeout))
	} else {
		b.ctx, b.cancel = context.WithCancel(ctx)
	}
	if limits.Memory > 0 {
		runtime.GC() // what is garbage now must not count as room
		b.heapMax = heap() + limits.Memory
		b.watching.Go(b.watch)
	}
	return b
}

func (b *budget) close() {
	b.cancel()
	b.watching.Wait()
}

// begin returns a context for one search, which done must be called after.
func (b *budget) begin() (ctx context.Context, done func()) {
	ctx, end := context.WithCancelCause(b.ctx)
	s := &searching{end}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = append(b.running, s)
	return ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i, other := range b.running {
			if other == s {
				b.running = append(b.running[:i], b.running[i+1:]...)
				break
			}
		}
		end(nil)
	}
}

// over reports whether no search may go on.
func (b *budget) over() bool { return b.ctx.Err() != nil }

// why returns the reason for which a context ended.
func why(ctx context.Context) string {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause.Error()
	}
	return "the check was interrupted"
}

const (
	watchEvery   = 5 * time.Millisecond
	collectEvery = 100 * time.Millisecond // at most, when the heap looks too large
)

// watch ends the search that has gone on for longest when the memory is used up: it is
// likely to hold most of it.
func (b *budget) watch() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var collected time.Time
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-ticker.C:
		}
		if heap() <= b.heapMax || time.Since(collected) < collectEvery {
			continue
		}
		collected = time.Now()
		runtime.GC() // the heap may be garbage only
		if heap() > b.heapMax {
			b.endOldest()
		}
	}
}

func (b *budget) endOldest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.running) > 0 {
		b.running[0].end(fmt.Errorf("the memory budget of %d MiB ended", b.memory>>20))
	}
}

// heap returns the bytes of the heap's objects, dead ones that were not collected yet
// included.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
