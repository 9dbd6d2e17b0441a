package raftnode

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"capsize/histories"
)

// Queues are kept as lists, and elements taken out by compare-and-swap.

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
	return c.update(ctx, key, "taken", "queue", func(seen *string) (update, error) {
		if seen == nil || *seen == "" {
			return update{nothing: true}, nil
		}
		oldest, rest, _ := strings.Cut(*seen, " ")
		element, err := strconv.ParseInt(oldest, 10, 64)
		if err != nil {
			return update{}, fmt.Errorf("dequeue %s: it holds no numbers: %w", key, err)
		}
		return update{text: rest, result: histories.Int(element)}, nil
	})
}
