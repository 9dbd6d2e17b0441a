package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"capsize/raftnode/kv"
	"capsize/raftnode/replica"
)

// changedBody is a change of a key; the value is null where it was deleted.
type changedBody struct {
	Key      text   `json:"key"`
	Value    *text  `json:"value"`
	Revision uint64 `json:"revision"`
}

// watchBody is all changes of a range after one revision and up to another, in order.
type watchBody struct {
	Changes  []changedBody `json:"changes"`
	Revision uint64        `json:"revision"` // to go on after
}

// watched is one look at the changes.
type watched struct {
	list        []kv.Change
	upTo, since uint64
	known       bool
	moved       <-chan struct{} // closed when there may be more
}

// serveWatch answers as soon as there are changes after a revision, and with none when the
// time is over. It tells what this node has applied: never what is not committed, late where
// the node lags, and always all of it in the order in which it was applied.
func (s *Server) serveWatch(c *exchange) {
	after, err := strconv.ParseUint(c.query("after"), 10, 63)
	if err != nil {
		fail(c, http.StatusBadRequest, true, fmt.Sprintf("after %q: want the revision after which to begin, 0 for all", c.query("after")))
		return
	}
	timeout, err := patience(c)
	if err != nil {
		fail(c, http.StatusBadRequest, true, err.Error())
		return
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		look, err := s.look(ctx, c.query("from"), c.query("to"), after)
		switch {
		case err != nil && ctx.Err() == nil:
			s.metrics.request("watch", replica.Refused, began)
			fail(c, http.StatusServiceUnavailable, true, err.Error())
			return
		case err == nil && !look.known:
			s.metrics.request("watch", replica.Refused, began)
			answer(c, http.StatusGone, struct {
				errorBody
				Since uint64 `json:"since"`
			}{errorBody{fmt.Sprintf("the changes after revision %d are forgotten: they are known from %d on", after, look.since), outcome(true)}, look.since})
			return
		case len(look.list) > 0 || ctx.Err() != nil:
			s.metrics.request("watch", replica.Done, began)
			answer(c, http.StatusOK, look.body(after))
			return
		}
		select {
		case <-look.moved:
		case <-s.stopped:
		case <-ctx.Done():
		}
	}
}

// look asks the loop for changes, and to be told when there may be more.
func (s *Server) look(ctx context.Context, from, to string, after uint64) (w watched, err error) {
	looked := make(chan watched, 1)
	err = s.call(ctx, func() {
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		w := watched{moved: s.moved}
		w.list, w.upTo, w.since, w.known = s.replica.Changes(from, to, after)
		looked <- w
	})
	if err == nil {
		w = <-looked
	}
	return w, err
}

func (w *watched) body(after uint64) watchBody {
	body := watchBody{Changes: make([]changedBody, len(w.list)), Revision: max(after, w.upTo)}
	for i, c := range w.list {
		body.Changes[i] = changedBody{Key: text(c.Key), Revision: c.Revision}
		if value := text(c.Value); !c.Deleted {
			body.Changes[i].Value = &value
		}
	}
	return body
}
