package harness

import (
	"context"
	"sync"
	"sync/atomic"

	"capsize/checkers"
	"capsize/histories"
)

// watchman judges the history while it is made, beside the clients: events wait for it in a
// bounded queue. When it falls behind by a whole queue it stops, since a gap would make what
// follows look wrong; the check of the finished run decides then.
type watchman struct {
	judges []checkers.Live
	queue  chan histories.Event
	behind atomic.Bool
	work   sync.WaitGroup

	alarm  checkers.Alarm
	raised chan struct{} // closed when alarm is set
}

const watchQueue = 1 << 16

// newWatchman begins to judge what take is given. The checkers that cannot judge a run while
// it goes on are left out.
func newWatchman(all []checkers.Checker) *watchman {
	w := &watchman{queue: make(chan histories.Event, watchQueue), raised: make(chan struct{})}
	for _, checker := range all {
		if live, ok := checker.(checkers.LiveChecker); ok {
			w.judges = append(w.judges, live.Live())
		}
	}
	w.work.Go(w.judge)
	return w
}

// take takes the next event. It does not wait.
func (w *watchman) take(e histories.Event) {
	if w.behind.Load() || len(w.judges) == 0 {
		return
	}
	select {
	case w.queue <- e:
	default:
		w.behind.Store(true)
	}
}

func (w *watchman) judge() {
	for e := range w.queue {
		for _, judge := range w.judges {
			if alarm := judge.Event(&e); alarm != nil {
				w.alarm = *alarm
				close(w.raised)
				w.behind.Store(true) // one alarm is enough
				for range w.queue {  // until close
				}
				return
			}
		}
	}
}

// close ends the judging; nothing must be taken any more. It says what was not judged.
func (w *watchman) close() (unjudged []string) {
	close(w.queue)
	w.work.Wait()
	select {
	case <-w.raised:
		return nil
	default:
	}
	if w.behind.Load() {
		unjudged = append(unjudged, "the live check fell behind and stopped")
	}
	for _, judge := range w.judges {
		unjudged = append(unjudged, judge.Unjudged()...)
	}
	return unjudged
}

// violated waits for an alarm; it reports whether there was one before ctx ended.
func (w *watchman) violated(ctx context.Context) (checkers.Alarm, bool) {
	select {
	case <-w.raised:
		return w.alarm, true
	case <-ctx.Done():
		return checkers.Alarm{}, false
	}
}
