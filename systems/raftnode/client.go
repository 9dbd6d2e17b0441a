package raftnode

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"capsize/clusters"
	"capsize/histories"
)

// client is one process's client. Its session and sequence numbers make an operation
// apply once however often it is sent, so it may send one again when it does not know
// what became of it.
type client struct {
	http      *http.Client
	addresses []string // of the nodes, the client's own first
	retries   int
	session   string
	sequence  uint64
	attempts  int
	tokens    map[string]int64 // of the locks that it took
}

func newClient(c clusters.Cluster, node string, retries int) (*client, error) {
	nodes := c.Nodes()
	at := slices.Index(nodes, node)
	if at < 0 {
		return nil, fmt.Errorf("open a client of %s: the cluster has %v", node, nodes)
	}
	session, err := newSession()
	if err != nil {
		return nil, fmt.Errorf("open a client of %s: %w", node, err)
	}
	client := &client{http: newHTTPClient(), retries: retries, session: session}
	for i := range nodes {
		client.addresses = append(client.addresses, c.Dial(clusters.Client, nodes[(at+i)%len(nodes)], clientPort))
	}
	return client, nil
}

func newSession() (string, error) {
	var b [12]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}

// Get reads a key.
func (c *client) Get(ctx context.Context, key string) (histories.Reply, error) {
	return c.get(ctx, key, "")
}

// GetStale reads a key as the node has it, which may be a state of the past.
func (c *client) GetStale(ctx context.Context, key string) (histories.Reply, error) {
	return c.get(ctx, key, "?consistency=stale")
}

func (c *client) get(ctx context.Context, key, query string) (histories.Reply, error) {
	answer, err := c.do(ctx, http.MethodGet, kvPath(key)+query, nil)
	if err != nil {
		return histories.Reply{}, err
	}
	value, err := integer(answer.Value)
	if err != nil {
		return histories.Reply{}, fmt.Errorf("get %s: %w", key, err)
	}
	return histories.Reply{Value: value, Revision: answer.ModRevision}, nil
}

// Put writes a key.
func (c *client) Put(ctx context.Context, key string, value int64) (histories.Reply, error) {
	answer, err := c.do(ctx, http.MethodPut, kvPath(key), map[string]any{"value": number(value)})
	return histories.Reply{Revision: answer.Revision}, err
}

// CompareAndSwap replaces a key's value if it is the expected one.
func (c *client) CompareAndSwap(ctx context.Context, key string, expected, replacement int64) (histories.Reply, error) {
	answer, err := c.do(ctx, http.MethodPost, kvPath(key)+"/cas", map[string]any{
		"expected": map[string]any{"value": number(expected)}, "value": number(replacement),
	})
	return histories.Reply{Revision: answer.Revision}, err
}

// integer reads a number that a node keeps as a string; nil: nothing is there.
func integer(text *string) (histories.Value, error) {
	if text == nil {
		return histories.Nil, nil
	}
	value, err := strconv.ParseInt(*text, 10, 64)
	if err != nil {
		return histories.Nil, fmt.Errorf("it holds no number: %w", err)
	}
	return histories.Int(value), nil
}

// kvPath is where a node has a key.
func kvPath(key string) string { return "/v1/kv/" + url.PathEscape(key) }

// number is how a client keeps a number: the node keeps strings.
func number(value int64) string { return strconv.FormatInt(value, 10) }

// Attempts returns how often the last operation was sent.
func (c *client) Attempts() int { return c.attempts }

// Close drops the connections.
func (c *client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// answer is the body of every reply.
type answer struct {
	Value       *string `json:"value"`
	Revision    int64   `json:"revision"`
	ModRevision int64   `json:"modRevision"`
	Entries     []entry `json:"entries"`
	More        bool    `json:"more"`
	Deleted     uint64  `json:"deleted"`
	Token       int64   `json:"token"` // of a lock
	Error       string  `json:"error"`
	Outcome     string  `json:"outcome"`

	Succeeded bool     `json:"succeeded"` // of a transaction
	Answers   []answer `json:"answers"`   // of its actions

	Changes []changed `json:"changes"` // of a watch
	Since   int64     `json:"since"`   // from where on changes are known
}

// entry is a key in the answer to a range.
type entry struct {
	Key         string `json:"key"`
	Value       string `json:"value"`
	ModRevision int64  `json:"modRevision"`
}

// changed is a change in the answer to a watch.
type changed struct {
	Key      string  `json:"key"`
	Value    *string `json:"value"`
	Revision int64   `json:"revision"`
}

// forgotten is the answer to a watch of changes that the node has forgotten.
type forgotten struct {
	error
	since int64
}

func (f *forgotten) Unwrap() error { return f.error }

// do performs one operation: it sends the request, and while the outcome is unknown and
// retries are left, sends the same session and sequence again to the next node.
//
// Once one attempt is unknown, a later refusal proves nothing of the operation: "no
// leader" is said of the second request, and the first may still be applied. The
// exception is a mismatch. It is the result that the cluster remembers for this very
// sequence; whatever of the operation comes later gets the same result and changes
// nothing.
func (c *client) do(ctx context.Context, method, path string, body map[string]any) (answer, error) {
	c.sequence++
	c.attempts = 0
	var unknown error
	for attempt := 0; attempt <= c.retries && (attempt == 0 || ctx.Err() == nil); attempt++ {
		got, err := c.try(ctx, attempt, method, path, body)
		switch {
		case err == nil, errors.As(err, new(*histories.Refusal)):
			return got, err
		case histories.Outcome(err) != histories.Fail:
			unknown = errors.Join(unknown, err)
		case unknown == nil:
			return got, err
		}
	}
	return answer{}, unknown
}

// try sends the request once. An attempt that is not the last gets its share of the time
// that is left, and the node is told to answer a little before that is over, so that its
// word arrives and the connection can be used again.
func (c *client) try(ctx context.Context, attempt int, method, path string, body map[string]any) (answer, error) {
	var patience time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		share := time.Until(deadline) / time.Duration(c.retries-attempt+1)
		patience = share * 9 / 10
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, share)
		defer cancel()
	}
	// A request that no connection was found for was not sent. Everything after that may
	// have reached the node, whatever the error says. A get that was sent on a connection
	// which turned out dead is sent again by net/http: that counts as an attempt too.
	var connections atomic.Int32
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connections.Add(1) },
	})
	address := c.addresses[attempt%len(c.addresses)]
	request, err := c.request(ctx, address, method, path, body, patience)
	if err != nil {
		return answer{}, histories.Definite(err)
	}
	got, err := c.exchange(request)
	c.attempts += int(connections.Load())
	if err != nil && connections.Load() == 0 {
		err = histories.Definite(fmt.Errorf("not sent: %w", err))
	}
	return got, err
}

func (c *client) request(ctx context.Context, address, method, path string, body map[string]any, patience time.Duration) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, reader)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Capsize-Session", c.session)
	request.Header.Set("Capsize-Sequence", strconv.FormatUint(c.sequence, 10))
	if patience > 0 {
		request.Header.Set("Capsize-Timeout", patience.String())
	}
	return request, nil
}

// exchange sends a request and reads its answer.
func (c *client) exchange(request *http.Request) (answer, error) {
	response, err := c.http.Do(request)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // the address and the key stand in the history anyway
		}
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	data, err := io.ReadAll(io.LimitReader(response.Body, answerMost))
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: read the answer: %w", request.Method, request.URL, err)
	}
	var got answer
	if err := json.Unmarshal(data, &got); err != nil {
		return answer{}, fmt.Errorf("%s %s: answer %s is no JSON: %w", request.Method, request.URL, response.Status, err)
	}
	return got, got.verdict(request, response)
}

// verdict says what an answer says of its request. Only a node's explicit word makes a
// failure definite.
func (a answer) verdict(request *http.Request, response *http.Response) error {
	if response.StatusCode == http.StatusOK && a.Error == "" {
		return nil
	}
	err := fmt.Errorf("%s %s: %s: %s", request.Method, request.URL, response.Status, a.Error)
	switch {
	case a.Outcome != "definite" || response.StatusCode < http.StatusBadRequest:
		return err
	case response.StatusCode == http.StatusConflict && a.Error == "mismatch":
		found, err := integer(a.Value)
		return &histories.Refusal{Found: found, Said: err == nil, Revision: a.ModRevision}
	case response.StatusCode == http.StatusConflict && a.Error == "another owner holds the lock":
		return &histories.Refusal{}
	case response.StatusCode == http.StatusGone:
		return &forgotten{histories.Definite(err), a.Since}
	}
	return histories.Definite(err)
}
