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
	maxBodyBytes   = 4 << 10
)

// valueBody is the answer to a get.
type valueBody struct {
	Value *int64 `json:"value"` // null: the key holds nothing
}

// errorBody is every answer that is an error. Outcome is "definite" where the request
// took no effect and never will, else "indefinite".
type errorBody struct {
	Error   string `json:"error"`
	Outcome string `json:"outcome"`
}

// mismatchBody also says what the key holds instead.
type mismatchBody struct {
	errorBody
	valueBody
}

// statusBody is the answer to GET /v1/status.
type statusBody struct {
	ID      uint64 `json:"id"`
	Name    string `json:"name"`
	Term    uint64 `json:"term"`
	Role    string `json:"role"`
	Leader  string `json:"leader"` // empty: none is known
	Commit  uint64 `json:"commit"`
	Applied uint64 `json:"applied"`
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.serveStatus)
	mux.HandleFunc("GET /v1/kv/{key}", s.serveGet)
	mux.HandleFunc("PUT /v1/kv/{key}", s.servePut)
	mux.HandleFunc("POST /v1/kv/{key}/cas", s.serveCompareAndSwap)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, true, fmt.Sprintf("%s %s: want GET or PUT /v1/kv/{key}, POST /v1/kv/{key}/cas, or GET /v1/status", r.Method, r.URL.Path))
	})
	return mux
}

// serveStatus answers from what the loop said last: it waits for nobody.
func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	status := s.status.Load()
	answer(w, http.StatusOK, statusBody{
		ID: status.ID, Name: s.config.Name, Term: status.Term, Role: status.Role.String(),
		Leader: s.config.name(status.Leader), Commit: status.Commit, Applied: status.Applied,
	})
}

func (s *Server) serveGet(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, replica.Request{Op: replica.Get})
}

func (s *Server) servePut(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Value *int64 `json:"value"`
	}
	if err := decodeBody(w, r, &body); err != nil || body.Value == nil {
		fail(w, http.StatusBadRequest, true, badBody(`{"value": 64-bit integer}`, err))
		return
	}
	s.serve(w, r, replica.Request{Op: replica.Put, Value: *body.Value})
}

func (s *Server) serveCompareAndSwap(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Expected *int64 `json:"expected"`
		Value    *int64 `json:"value"`
	}
	if err := decodeBody(w, r, &body); err != nil || body.Expected == nil || body.Value == nil {
		fail(w, http.StatusBadRequest, true, badBody(`{"expected": 64-bit integer, "value": 64-bit integer}`, err))
		return
	}
	s.serve(w, r, replica.Request{Op: replica.CompareAndSwap, Expected: *body.Expected, Value: *body.Value})
}

func decodeBody(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func badBody(want string, err error) string {
	if err == nil {
		return "body: want " + want
	}
	return fmt.Sprintf("body: want %s: %v", want, err)
}

// serve passes a request to the loop and answers with what comes of it.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, q replica.Request) {
	timeout, err := complete(&q, r)
	if err != nil {
		fail(w, http.StatusBadRequest, true, err.Error())
		return
	}
	q.Ticks = int((timeout + s.config.Tick - 1) / s.config.Tick)
	replies := make(chan replica.Reply, 1)
	select {
	case s.requests <- request{q, replies}:
	default:
		fail(w, http.StatusServiceUnavailable, true, replica.ErrOverloaded.Error())
		return
	}
	select {
	case reply := <-replies:
		respond(w, q.Op, reply)
	case <-s.stopped:
		select {
		case reply := <-replies: // it was answered just before
			respond(w, q.Op, reply)
		default:
			fail(w, http.StatusServiceUnavailable, q.Op == replica.Get, "the node is stopping")
		}
	case <-r.Context().Done(): // nobody listens any more
	}
}

// complete fills in what the URL and the headers say.
func complete(q *replica.Request, r *http.Request) (timeout time.Duration, err error) {
	q.Key = r.PathValue("key")
	q.Session = r.Header.Get(HeaderSession)
	if sequence := r.Header.Get(HeaderSequence); sequence != "" {
		if q.Sequence, err = strconv.ParseUint(sequence, 10, 64); err != nil {
			return 0, fmt.Errorf("%s %q: want a number from 1", HeaderSequence, sequence)
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

func respond(w http.ResponseWriter, op replica.Op, reply replica.Reply) {
	value := valueBody{}
	if reply.Present {
		value.Value = &reply.Value
	}
	switch {
	case reply.Outcome == replica.Done && op == replica.Get:
		answer(w, http.StatusOK, value)
	case reply.Outcome == replica.Done:
		answer(w, http.StatusOK, struct{}{})
	case errors.Is(reply.Err, replica.ErrMismatch):
		answer(w, http.StatusConflict, mismatchBody{errorBody{reply.Err.Error(), outcome(true)}, value})
	default:
		fail(w, code(reply.Err), reply.Outcome == replica.Refused, reply.Err.Error())
	}
}

func code(err error) int {
	switch {
	case errors.Is(err, replica.ErrTimeout):
		return http.StatusGatewayTimeout
	case errors.Is(err, replica.ErrSuperseded):
		return http.StatusConflict
	case errors.Is(err, replica.ErrInvalid), errors.Is(err, replica.ErrReused):
		return http.StatusBadRequest
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
