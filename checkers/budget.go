package checkers

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

// budget is the time and memory that searches may use. Deciding linearizability is
// NP-complete in general, so each search must be one that can be ended. Porcupine knows a
// time-out only, and leaves a goroutine behind at it; here a search ends because its
// model refuses every step from some moment on.
type budget struct {
	timeout time.Duration
	memory  uint64
	heapMax uint64

	mu       sync.Mutex
	running  map[*search]bool
	spent    string // why no search may go on; empty while they may
	quit     chan struct{}
	watching sync.WaitGroup
}

// search is one call of Porcupine.
type search struct {
	steps atomic.Int64
	ended atomic.Pointer[string] // why its answer means nothing
}

func (s *search) end(why string) { s.ended.CompareAndSwap(nil, &why) }

// newBudget starts to count. The caller must close it. A timeout or memory of 0 is no
// limit.
func newBudget(ctx context.Context, timeout time.Duration, memory uint64) *budget {
	b := &budget{timeout: timeout, memory: memory, running: make(map[*search]bool), quit: make(chan struct{})}
	if memory > 0 {
		runtime.GC() // what is garbage now must not count as room
		b.heapMax = heap() + memory
	}
	b.watching.Go(func() { b.watch(ctx) })
	return b
}

func (b *budget) close() {
	close(b.quit)
	b.watching.Wait()
}

// decide asks Porcupine whether the spans have a legal order. Where the budget ends
// first, the result is Unknown and the reason says why.
func (b *budget) decide(model porcupine.Model, spans []span) (porcupine.CheckResult, string) {
	result, _, reason := b.search(model, spans, false)
	return result, reason
}

// legal reports whether the spans have a legal order, and whether that is known.
func (b *budget) legal(model porcupine.Model, spans []span) (legal, known bool) {
	result, _ := b.decide(model, spans)
	return result == porcupine.Ok, result != porcupine.Unknown
}

func (b *budget) search(model porcupine.Model, spans []span, verbose bool) (result porcupine.CheckResult, info porcupine.LinearizationInfo, reason string) {
	s := new(search)
	if why := b.begin(s); why != "" {
		return porcupine.Unknown, info, why
	}
	defer b.finish(s)
	history := forPorcupine(spans)
	if verbose {
		result, info = porcupine.CheckOperationsVerbose(s.bound(model), history, 0)
	} else {
		result = porcupine.CheckOperationsTimeout(s.bound(model), history, 0)
	}
	// An order that was found is one, whatever happened meanwhile; that none was found means
	// something only if all were tried.
	if why := s.ended.Load(); why != nil && result != porcupine.Ok {
		return porcupine.Unknown, info, *why
	}
	return result, info, ""
}

// bound makes a model that refuses every step once the search is ended, and ends it if
// the model itself panics: that happens in a goroutine of Porcupine's, where nobody else
// could catch it.
func (s *search) bound(model porcupine.Model) porcupine.Model {
	step, stepContext := model.Step, model.StepContext
	if stepContext == nil {
		stepContext = func(_ context.Context, state, input, output any) (bool, any) { return step(state, input, output) }
	}
	model.Step = nil
	model.StepContext = func(ctx context.Context, state, input, output any) (ok bool, next any) {
		if s.ended.Load() != nil {
			return false, state
		}
		s.steps.Add(1)
		defer func() {
			if cause := recover(); cause != nil {
				s.end(fmt.Sprintf("the model failed: %v\n%s", cause, panicStack()))
				ok, next = false, state
			}
		}()
		return stepContext(ctx, state, input, output)
	}
	return model
}

func (b *budget) begin(s *search) (spent string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent == "" {
		b.running[s] = true
	}
	return b.spent
}

func (b *budget) finish(s *search) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, s)
}

// over reports whether no search may go on.
func (b *budget) over() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spent != ""
}

const (
	watchEvery   = 5 * time.Millisecond
	collectEvery = 100 * time.Millisecond // at most, when the heap looks too large
)

// watch ends searches when the budget is used up: all of them when the time is over, the
// one that tried most when the memory is.
func (b *budget) watch(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	start := time.Now()
	var collected time.Time
	for {
		select {
		case <-b.quit:
			return
		case <-ctx.Done():
			b.endAll("the check was interrupted")
			return
		case <-ticker.C:
		}
		if b.timeout > 0 && time.Since(start) >= b.timeout {
			b.endAll(fmt.Sprintf("the time budget of %s ended", b.timeout))
			return
		}
		if b.memory == 0 || heap() <= b.heapMax || time.Since(collected) < collectEvery {
			continue
		}
		collected = time.Now()
		runtime.GC() // the heap may be garbage only
		if used := heap(); used > b.heapMax {
			b.endLargest(fmt.Sprintf("the memory budget of %s ended", mebibytes(b.memory)))
		}
	}
}

func (b *budget) endAll(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = why
	for s := range b.running {
		s.end(why)
	}
}

// endLargest ends the search that made most steps: each may have left something in
// memory. One that is ending already has to be waited for first.
func (b *budget) endLargest(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var largest *search
	for s := range b.running {
		if s.ended.Load() != nil {
			return
		}
		if largest == nil || s.steps.Load() > largest.steps.Load() {
			largest = s
		}
	}
	if largest != nil {
		largest.end(why)
	}
}

// heap returns the bytes of the heap's objects, dead ones that were not collected yet
// included.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }
