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
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"capsize/clusters"
	"capsize/histories"
	"capsize/systems"
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
}

func newClient(c clusters.Cluster, node string, retries int) *client {
	nodes := c.Nodes()
	at := slices.Index(nodes, node)
	client := &client{http: &http.Client{Transport: newTransport()}, retries: retries, session: newSession()}
	for i := range nodes {
		client.addresses = append(client.addresses, c.Listen(nodes[(at+i)%len(nodes)], clientPort))
	}
	return client
}

func newSession() string {
	var b [12]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Get reads a key at the client's own node.
func (c *client) Get(ctx context.Context, key string) (histories.Value, error) {
	answer, err := c.do(ctx, http.MethodGet, "/v1/kv/"+url.PathEscape(key), nil)
	if err != nil || answer.Value == nil {
		return histories.Nil, err
	}
	return histories.Int(*answer.Value), nil
}

// Put writes a key.
func (c *client) Put(ctx context.Context, key string, value int64) error {
	_, err := c.do(ctx, http.MethodPut, "/v1/kv/"+url.PathEscape(key), map[string]int64{"value": value})
	return err
}

// CompareAndSwap replaces a key's value if it is the expected one.
func (c *client) CompareAndSwap(ctx context.Context, key string, expected, replacement int64) error {
	_, err := c.do(ctx, http.MethodPost, "/v1/kv/"+url.PathEscape(key)+"/cas", map[string]int64{"expected": expected, "value": replacement})
	return err
}

// Attempts returns how often the last operation was sent.
func (c *client) Attempts() int { return c.attempts }

// Close drops the connections.
func (c *client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// answer is the body of every reply.
type answer struct {
	Value   *int64 `json:"value"`
	Error   string `json:"error"`
	Outcome string `json:"outcome"`
}

// do performs one operation: it sends the request, and while the outcome is unknown and
// retries are left, sends the same session and sequence again to the next node.
//
// Once one attempt is unknown, a later refusal proves nothing about the first: it may
// still be applied. The exception is a mismatch: it is the remembered result of this
// very sequence number, and what comes later gets the same result and changes nothing.
func (c *client) do(ctx context.Context, method, path string, body map[string]int64) (answer, error) {
	c.sequence++
	c.attempts = 0
	var unknown error
	for attempt := 0; attempt <= c.retries && (attempt == 0 || ctx.Err() == nil); attempt++ {
		c.attempts++
		try, cancel := c.attemptContext(ctx, attempt)
		got, err := c.send(try, c.addresses[attempt%len(c.addresses)], method, path, body)
		cancel()
		switch {
		case err == nil:
			return got, nil
		case errors.Is(err, systems.ErrMismatch):
			return got, err
		case histories.Outcome(err) == histories.Fail && unknown == nil:
			return got, err
		case histories.Outcome(err) != histories.Fail:
			unknown = errors.Join(unknown, err)
		}
	}
	return answer{}, unknown
}

// attemptContext gives an attempt that is not the last half of the time that is left.
func (c *client) attemptContext(ctx context.Context, attempt int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || attempt == c.retries {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

func (c *client) send(ctx context.Context, address, method, path string, body map[string]int64) (answer, error) {
	var got answer
	req, err := c.request(ctx, address, method, path, body)
	if err != nil {
		return got, histories.Definite(err) // nothing was sent
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
			return got, histories.Definite(err) // no connection: nothing was sent
		}
		return got, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	if err != nil {
		return got, fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	if err := json.Unmarshal(data, &got); err != nil {
		return got, fmt.Errorf("%s %s: answer %s is no JSON: %w", method, path, resp.Status, err)
	}
	if resp.StatusCode == http.StatusOK {
		return got, nil
	}
	return got, refusal(resp, got)
}

// refusal turns an error answer into an error that says its outcome.
func refusal(resp *http.Response, got answer) error {
	err := fmt.Errorf("%s: %s", resp.Status, got.Error)
	if got.Outcome != "definite" {
		return err
	}
	if resp.StatusCode == http.StatusConflict {
		return histories.Definite(systems.ErrMismatch)
	}
	return histories.Definite(err)
}

func (c *client) request(ctx context.Context, address, method, path string, body map[string]int64) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Capsize-Session", c.session)
	req.Header.Set("Capsize-Sequence", strconv.FormatUint(c.sequence, 10))
	return req, nil
}
