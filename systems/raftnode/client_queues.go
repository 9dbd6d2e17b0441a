package raftnode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"capsize/histories"
)

// Queues are kept as lists, and elements taken out by compare-and-swap: the look is repeated while
// others are faster; the swap itself never is, once its outcome is unknown.

// Enqueue puts an element at the end of a queue.
func (c *client) Enqueue(ctx context.Context, key string, element int64) (histories.Reply, error) {
	return c.Append(ctx, key, element)
}

// Queued returns the elements of a queue, the oldest first.
func (c *client) Queued(ctx context.Context, key string) (histories.Reply, error) {
	reply, err := c.List(ctx, key)
	return histories.Reply{Value: reply.Value}, err
}

// Dequeue takes the oldest element out of a queue.
func (c *client) Dequeue(ctx context.Context, key string) (histories.Reply, error) {
	path := kvPath(key)
	for {
		seen, err := c.do(ctx, http.MethodGet, path, nil)
		if err != nil {
			return histories.Reply{}, histories.Definite(fmt.Errorf("nothing was taken, since the queue could not be read: %w", err))
		}
		if seen.Value == nil || *seen.Value == "" {
			return histories.Reply{}, nil
		}
		oldest, rest, _ := strings.Cut(*seen.Value, " ")
		element, err := strconv.ParseInt(oldest, 10, 64)
		if err != nil {
			return histories.Reply{}, histories.Definite(fmt.Errorf("dequeue %s: it holds no numbers: %w", key, err))
		}
		swapped, err := c.do(ctx, http.MethodPost, path+"/cas", map[string]any{
			"expected": map[string]any{"modRevision": seen.ModRevision}, "value": rest,
		})
		switch {
		case err == nil:
			return histories.Reply{Value: histories.Int(element), Revision: swapped.Revision}, nil
		case !errors.As(err, new(*histories.Refusal)):
			return histories.Reply{}, err
		case ctx.Err() != nil:
			return histories.Reply{}, histories.Definite(fmt.Errorf("nothing was taken, since others were always faster: %w", ctx.Err()))
		}
	}
}
