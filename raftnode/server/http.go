package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

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
	maxConnections = 8192
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
	// Time is the node's wall clock, in RFC 3339 with nanoseconds, and UTC. It is no time.Time:
	// that cannot be encoded past the year 9999, where a fault may well set a clock.
	Time   string  `json:"time"`
	Uptime float64 `json:"uptime"` // seconds since the node started, by its monotonic clock
}

// exchange is a request to the HTTP API and the answer to it.
type exchange struct {
	*fasthttp.RequestCtx
	params []string // what stands in the path for the pattern's {parts}
}

// param returns what stands for the pattern's part of that number.
func (c *exchange) param(i int) string { return c.params[i] }

func (c *exchange) query(name string) string { return string(c.QueryArgs().Peek(name)) }

// route is an operation of the HTTP API.
type route struct {
	method string
	path   []string // {part} stands for anything
	serve  func(*exchange)
}

func (s *Server) routes() []route {
	var routes []route
	for _, r := range []struct {
		method, path string
		serve        func(*exchange)
	}{
		{"GET", "v1/status", s.serveStatus},
		{"GET", "v1/kv/{key}", s.serveGet},
		{"PUT", "v1/kv/{key}", s.servePut},
		{"DELETE", "v1/kv/{key}", s.serveDelete},
		{"POST", "v1/kv/{key}/cas", s.serveCompareAndSwap},
		{"POST", "v1/kv/{key}/append", s.serveAppend},
		{"GET", "v1/range", s.serveRange},
		{"DELETE", "v1/range", s.serveDeleteRange},
		{"POST", "v1/txn", s.serveTxn},
		{"GET", "v1/watch", s.serveWatch},
		{"GET", "v1/locks/{name}", s.serveLock},
		{"POST", "v1/locks/{name}/{what}", s.serveLockChange},
		{"GET", "v1/members", s.serveMembers},
		{"POST", "v1/members", s.serveChangeMembers},
		{"POST", "v1/leader", s.serveTransfer},
		{"POST", "v1/snapshot", s.serveSnapshot},
		{"GET", "metrics", func(c *exchange) { s.metrics.serve(c.RequestCtx) }},
	} {
		routes = append(routes, route{r.method, strings.Split(r.path, "/"), r.serve})
	}
	return routes
}

// handler serves the HTTP API. A key may hold any bytes, an escaped slash too, so paths are
// matched before they are unescaped: what routers do after.
func (s *Server) handler() fasthttp.RequestHandler {
	routes := s.routes()
	return func(ctx *fasthttp.RequestCtx) {
		method, path := string(ctx.Method()), string(ctx.URI().PathOriginal())
		parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
		for _, r := range routes {
			if params, ok := match(r.path, parts); ok && r.method == method {
				r.serve(&exchange{ctx, params})
				return
			}
		}
		fail(&exchange{RequestCtx: ctx}, http.StatusNotFound, true, fmt.Sprintf("%s %s: no such operation; docs/raftnode.md lists all", method, path))
	}
}

func match(pattern, parts []string) (params []string, ok bool) {
	if len(pattern) != len(parts) {
		return nil, false
	}
	for i, part := range parts {
		if !strings.HasPrefix(pattern[i], "{") {
			if part != pattern[i] {
				return nil, false
			}
			continue
		}
		param, err := url.PathUnescape(part)
		if err != nil {
			return nil, false
		}
		params = append(params, param)
	}
	return params, true
}

// newWeb returns the server of the HTTP API. net/http would do, but most of a busy node's time
// goes into HTTP, and fasthttp makes fewer system calls and no second goroutine for a request.
func (s *Server) newWeb() *fasthttp.Server {
	return &fasthttp.Server{
		Handler: s.handler(), Logger: webLogger(s.config.Logf),
		ErrorHandler: func(ctx *fasthttp.RequestCtx, err error) {
			code := http.StatusBadRequest
			if errors.Is(err, fasthttp.ErrBodyTooLarge) {
				code = http.StatusRequestEntityTooLarge
			}
			fail(&exchange{RequestCtx: ctx}, code, true, fmt.Sprintf("request: %v", err))
		},
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ReadBufferSize: 16 << 10, MaxRequestBodySize: 4 * maxBodyBytes, Concurrency: maxConnections,
		NoDefaultServerHeader: true, DisablePreParseMultipartForm: true, CloseOnShutdown: true,
	}
}

// serveStatus answers from what the loop said last: it waits for nobody. The clocks are read
// now, so that whoever disturbs them sees here what the node sees.
func (s *Server) serveStatus(c *exchange) {
	status := s.status.Load()
	answer(c, http.StatusOK, statusBody{
		ID: status.ID, Name: s.config.Name, Term: status.Term, Role: status.Role.String(),
		Leader: s.book.name(status.Leader), Commit: status.Commit, Applied: status.Applied, Snapshot: status.Snapshot,
		Time: time.Now().UTC().Format(time.RFC3339Nano), Uptime: time.Since(s.began).Seconds(),
	})
}

// decode reads a body into a struct. It answers itself, and returns false, where the body is
// not what it should be.
func decode(c *exchange, into any, want string) bool {
	body := c.PostBody()
	if len(body) > maxBodyBytes {
		fail(c, http.StatusRequestEntityTooLarge, true, fmt.Sprintf("body of %d bytes: want at most %d", len(body), maxBodyBytes))
		return false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows it")
		}
	}
	if err != nil {
		fail(c, http.StatusBadRequest, true, fmt.Sprintf("body: want %s: %v", want, err))
		return false
	}
	return true
}

// serve passes a request to the loop and answers with what comes of it: done writes the
// answer to a request that was carried out.
func (s *Server) serve(c *exchange, what string, q replica.Request, done func(replica.Reply) any) {
	timeout, err := complete(&q, c)
	if err != nil {
		fail(c, http.StatusBadRequest, true, err.Error())
		return
	}
	q.Ticks = int((timeout + s.config.Tick - 1) / s.config.Tick)
	began := time.Now()
	replies := make(chan replica.Reply, 1)
	select {
	case s.requests <- request{q, replies}:
	default:
		s.metrics.request(what, replica.Refused, began)
		fail(c, http.StatusServiceUnavailable, true, replica.ErrOverloaded.Error())
		return
	}
	finish := func(reply replica.Reply) {
		s.metrics.request(what, reply.Outcome, began)
		if reply.Outcome == replica.Done {
			answer(c, http.StatusOK, done(reply))
			return
		}
		refuse(c, reply)
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
			harmless := q.Kind == replica.Read || q.Kind == replica.ReadNow || q.Kind == replica.ReadLock
			fail(c, http.StatusServiceUnavailable, harmless, "the node is stopping")
		}
	}
}

// complete fills in what the URL and the headers say.
func complete(q *replica.Request, c *exchange) (timeout time.Duration, err error) {
	if q.Kind == replica.Propose {
		q.Command.Session = string(c.Request.Header.Peek(HeaderSession))
		if sequence := string(c.Request.Header.Peek(HeaderSequence)); sequence != "" {
			if q.Command.Sequence, err = strconv.ParseUint(sequence, 10, 64); err != nil {
				return 0, fmt.Errorf("%s %q: want a number from 1", HeaderSequence, sequence)
			}
		}
	}
	return patience(c)
}

// patience is how long to try, as the request says.
func patience(c *exchange) (timeout time.Duration, err error) {
	asked := string(c.Request.Header.Peek(HeaderTimeout))
	if asked == "" {
		asked = c.query("timeout")
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
func refuse(c *exchange, reply replica.Reply) {
	definite := reply.Outcome == replica.Refused
	why := errorBody{reply.Err.Error(), outcome(definite)}
	switch {
	case errors.Is(reply.Err, replica.ErrMismatch):
		answer(c, http.StatusConflict, struct {
			errorBody
			foundBody
		}{why, foundOf(reply.Result)})
	case errors.Is(reply.Err, replica.ErrHeld), errors.Is(reply.Err, replica.ErrNotHeld), errors.Is(reply.Err, replica.ErrFenced):
		answer(c, http.StatusConflict, struct {
			errorBody
			lockBody
		}{why, lockOf(reply)})
	default:
		answer(c, code(reply.Err), why)
	}
}

// codes are the status codes of what the replica answers with; the first that fits counts.
var codes = [...]struct {
	reason error
	code   int
}{
	{replica.ErrTimeout, http.StatusGatewayTimeout},
	{replica.ErrSuperseded, http.StatusConflict},
	{replica.ErrConfChange, http.StatusConflict},
	{replica.ErrNotCaughtUp, http.StatusConflict},
	{replica.ErrTooLarge, http.StatusRequestEntityTooLarge},
	{replica.ErrInvalid, http.StatusBadRequest},
	{replica.ErrReused, http.StatusBadRequest},
}

func code(err error) int {
	for _, c := range codes {
		if errors.Is(err, c.reason) {
			return c.code
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

func fail(c *exchange, code int, definite bool, why string) {
	answer(c, code, errorBody{why, outcome(definite)})
}

func answer(c *exchange, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("server: encode %T: %v", body, err)) // plain structs of numbers and strings
	}
	c.SetContentType("application/json")
	c.SetStatusCode(code)
	c.SetBody(append(data, '\n'))
}
