package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"capsize/raftnode/replica"
)

// Headers of the HTTP API.
const (
	// HeaderSession and HeaderSequence make a change apply once, however often and wherever
	// it is sent. A session sends one change at a time, with rising sequences from 1.
	HeaderSession  = "Capsize-Session"
	HeaderSequence = "Capsize-Sequence"
	// HeaderTimeout, or the query parameter timeout, is how long to try: "500ms". The server
	// tries for at most 30 s, and 5 s where nothing is said.
	HeaderTimeout = "Capsize-Timeout"
)

const (
	defaultTimeout = 5 * time.Second
	maxTimeout     = 30 * time.Second
	maxBodyBytes   = 2 << 20 // a command of kv.MaxCommandBytes, as JSON
)

// errorBody is every answer that is an error. Outcome is "definite" where the request
// took no effect and never will, else "indefinite".
type errorBody struct {
	Error   string `json:"error"`
	Outcome string `json:"outcome"`
}

// statusBody is the answer to GET /v1/status.
type statusBody struct {
	ID       uint64 `json:"id"`
	Name     string `json:"name"`
	Term     uint64 `json:"term"`
	Role     string `json:"role"`
	Leader   string `json:"leader"` // empty: none is known
	Commit   uint64 `json:"commit"`
	Applied  uint64 `json:"applied"`
	Snapshot uint64 `json:"snapshot"` // index of the newest durable one; 0: none
}

// routes are the HTTP API: a method and a pattern, and who answers.
func (s *Server) routes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /v1/status":               s.serveStatus,
		"GET /v1/kv/{key}":             s.serveGet,
		"PUT /v1/kv/{key}":             s.servePut,
		"DELETE /v1/kv/{key}":          s.serveDelete,
		"POST /v1/kv/{key}/cas":        s.serveCompareAndSwap,
		"POST /v1/kv/{key}/append":     s.serveAppend,
		"GET /v1/range":                s.serveRange,
		"DELETE /v1/range":             s.serveDeleteRange,
		"POST /v1/txn":                 s.serveTxn,
		"GET /v1/locks/{name}":         s.serveLock,
		"POST /v1/locks/{name}/{what}": s.serveLockChange,
		"GET /v1/members":              s.serveMembers,
		"POST /v1/members":             s.serveChangeMembers,
		"POST /v1/leader":              s.serveTransfer,
		"POST /v1/snapshot":            s.serveSnapshot,
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range s.routes() {
		mux.HandleFunc(pattern, handle)
	}
	mux.Handle("GET /metrics", s.metrics.handler())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, true, fmt.Sprintf("%s %s: no such operation; docs/raftnode.md lists all", r.Method, r.URL.Path))
	})
	return mux
}

// serveStatus answers from what the loop said last: it waits for nobody.
func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	status := s.status.Load()
	answer(w, http.StatusOK, statusBody{
		ID: status.ID, Name: s.config.Name, Term: status.Term, Role: status.Role.String(),
		Leader: s.book.name(status.Leader), Commit: status.Commit, Applied: status.Applied, Snapshot: status.Snapshot,
	})
}

// decode reads a body into a struct. It answers itself, and returns false, where the body is
// not what it should be.
func decode(w http.ResponseWriter, r *http.Request, into any, want string) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		fail(w, http.StatusBadRequest, true, fmt.Sprintf("body: want %s: %v", want, err))
		return false
	}
	return true
}

// serve passes a request to the loop and answers with what comes of it: done writes the
// answer to a request that was carried out.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, what string, q replica.Request, done func(replica.Reply) any) {
	timeout, err := complete(&q, r)
	if err != nil {
		fail(w, http.StatusBadRequest, true, err.Error())
		return
	}
	q.Ticks = int((timeout + s.config.Tick - 1) / s.config.Tick)
	began := time.Now()
	replies := make(chan replica.Reply, 1)
	select {
	case s.requests <- request{q, replies}:
	default:
		s.metrics.request(what, replica.Refused, began)
		fail(w, http.StatusServiceUnavailable, true, replica.ErrOverloaded.Error())
		return
	}
	finish := func(reply replica.Reply) {
		s.metrics.request(what, reply.Outcome, began)
		if reply.Outcome == replica.Done {
			answer(w, http.StatusOK, done(reply))
			return
		}
		refuse(w, reply)
	}
	select {
	case reply := <-replies:
		finish(reply)
	case <-s.stopped:
		select {
		case reply := <-replies: // it was answered just before
			finish(reply)
		default:
			s.metrics.request(what, replica.Unknown, began)
			harmless := q.Kind == replica.Read || q.Kind == replica.ReadLock
			fail(w, http.StatusServiceUnavailable, harmless, "the node is stopping")
		}
	case <-r.Context().Done(): // nobody listens any more
	}
}

// complete fills in what the URL and the headers say.
func complete(q *replica.Request, r *http.Request) (timeout time.Duration, err error) {
	if q.Kind == replica.Propose {
		q.Command.Session = r.Header.Get(HeaderSession)
		if sequence := r.Header.Get(HeaderSequence); sequence != "" {
			if q.Command.Sequence, err = strconv.ParseUint(sequence, 10, 64); err != nil {
				return 0, fmt.Errorf("%s %q: want a number from 1", HeaderSequence, sequence)
			}
		}
	}
	asked := r.Header.Get(HeaderTimeout)
	if asked == "" && r.URL.RawQuery != "" {
		asked = r.URL.Query().Get("timeout")
	}
	if asked == "" {
		return defaultTimeout, nil
	}
	timeout, err = time.ParseDuration(asked)
	if err != nil || timeout <= 0 {
		return 0, fmt.Errorf("timeout %q: want a duration such as 500ms, at most %s", asked, maxTimeout)
	}
	return min(timeout, maxTimeout), nil
}

// refuse answers a request that was not carried out, as far as is known. Where that is
// because of what the keys or locks hold, the answer says what they hold.
func refuse(w http.ResponseWriter, reply replica.Reply) {
	definite := reply.Outcome == replica.Refused
	why := errorBody{reply.Err.Error(), outcome(definite)}
	switch {
	case errors.Is(reply.Err, replica.ErrMismatch):
		answer(w, http.StatusConflict, struct {
			errorBody
			foundBody
		}{why, foundOf(reply.Result)})
	case errors.Is(reply.Err, replica.ErrHeld), errors.Is(reply.Err, replica.ErrNotHeld), errors.Is(reply.Err, replica.ErrFenced):
		answer(w, http.StatusConflict, struct {
			errorBody
			lockBody
		}{why, lockOf(reply)})
	default:
		answer(w, code(reply.Err), why)
	}
}

func code(err error) int {
	for code, reasons := range map[int][]error{
		http.StatusGatewayTimeout:        {replica.ErrTimeout},
		http.StatusConflict:              {replica.ErrSuperseded, replica.ErrConfChange, replica.ErrNotCaughtUp},
		http.StatusRequestEntityTooLarge: {replica.ErrTooLarge},
		http.StatusBadRequest:            {replica.ErrInvalid, replica.ErrReused},
	} {
		for _, reason := range reasons {
			if errors.Is(err, reason) {
				return code
			}
		}
	}
	return http.StatusServiceUnavailable
}

func outcome(definite bool) string {
	if definite {
		return "definite"
	}
	return "indefinite"
}

func fail(w http.ResponseWriter, code int, definite bool, why string) {
	answer(w, code, errorBody{why, outcome(definite)})
}

func answer(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("server: encode %T: %v", body, err)) // plain structs of numbers and strings
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // the client is gone, if that fails
}
