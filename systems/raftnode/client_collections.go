package raftnode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"capsize/histories"
)

// Lists are kept as text, the elements divided by spaces: a node appends text.

// Append adds an element at the end of a list.
func (c *client) Append(ctx context.Context, key string, element int64) (histories.Reply, error) {
	answer, err := c.do(ctx, http.MethodPost, kvPath(key)+"/append", map[string]any{"value": number(element) + " "})
	return histories.Reply{Revision: answer.Revision}, err
}

// List returns the elements of a list in order.
func (c *client) List(ctx context.Context, key string) (histories.Reply, error) {
	answer, err := c.do(ctx, http.MethodGet, kvPath(key), nil)
	if err != nil {
		return histories.Reply{}, err
	}
	elements, err := integers(answer.Value)
	if err != nil {
		return histories.Reply{}, fmt.Errorf("list %s: %w", key, err)
	}
	return histories.Reply{Value: elements, Revision: answer.ModRevision}, nil
}

// integers reads the elements of a list; nil: nothing is there.
func integers(text *string) (histories.Value, error) {
	elements := []int64{}
	if text == nil {
		return histories.Ints(elements...), nil
	}
	for word := range strings.FieldsSeq(*text) {
		element, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return histories.Nil, fmt.Errorf("it holds no numbers: %w", err)
		}
		elements = append(elements, element)
	}
	return histories.Ints(elements...), nil
}

// Sets are kept as a key for each element, so that a read is a range.

// AddElement adds an element to a set.
func (c *client) AddElement(ctx context.Context, key string, element int64) (histories.Reply, error) {
	_, err := c.do(ctx, http.MethodPut, kvPath(itemKey(key, element)), map[string]any{"value": ""})
	return histories.Reply{}, err
}

// Elements returns the elements of a set.
func (c *client) Elements(ctx context.Context, key string) (histories.Reply, error) {
	const slash, afterSlash = "/", "0"
	query := url.Values{"from": {key + slash}, "to": {key + afterSlash}}
	answer, err := c.do(ctx, http.MethodGet, "/v1/range?"+query.Encode(), nil)
	if err != nil {
		return histories.Reply{}, err
	}
	if answer.More {
		return histories.Reply{}, fmt.Errorf("set %s: it has more elements than one answer holds", key)
	}
	elements := []int64{}
	for _, entry := range answer.Entries {
		element, err := strconv.ParseInt(strings.TrimPrefix(entry.Key, key+slash), 10, 64)
		if err != nil {
			return histories.Reply{}, fmt.Errorf("set %s: an element that is no number: %w", key, err)
		}
		elements = append(elements, element)
	}
	return histories.Reply{Value: histories.Ints(elements...)}, nil
}

// Counters are kept as numbers and changed by compare-and-swap.

// AddTo adds to a counter and returns the sum.
func (c *client) AddTo(ctx context.Context, key string, delta int64) (histories.Reply, error) {
	return c.update(ctx, key, "added", "sum", func(seen *string) (update, error) {
		sum, err := integer(seen)
		if err != nil {
			return update{}, fmt.Errorf("add to %s: %w", key, err)
		}
		before, _ := sum.Int()
		return update{text: number(before + delta), result: histories.Int(before + delta)}, nil
	})
}

// update is what a key is to hold, and what is returned once it does.
type update struct {
	text    string
	result  histories.Value
	nothing bool // is to be done
}

// update looks at a key, nil where it holds nothing, and swaps what it has seen for what becomes
// of that. The look is repeated while others are faster; the swap itself never is, once its
// outcome is unknown. Errors say what was not done, and of what.
func (c *client) update(ctx context.Context, key, done, what string, becomes func(seen *string) (update, error)) (histories.Reply, error) {
	path := kvPath(key)
	for {
		seen, err := c.do(ctx, http.MethodGet, path, nil)
		if err != nil {
			return histories.Reply{}, histories.Definite(fmt.Errorf("nothing was %s, since the %s could not be read: %w", done, what, err))
		}
		to, err := becomes(seen.Value)
		if err != nil || to.nothing {
			return histories.Reply{}, histories.Definite(err)
		}
		expected := map[string]any{"modRevision": seen.ModRevision}
		if seen.Value == nil {
			expected = map[string]any{"absent": true}
		}
		swapped, err := c.do(ctx, http.MethodPost, path+"/cas", map[string]any{"expected": expected, "value": to.text})
		switch {
		case err == nil:
			return histories.Reply{Value: to.result, Revision: swapped.Revision}, nil
		case !errors.As(err, new(*histories.Refusal)):
			return histories.Reply{}, err
		case ctx.Err() != nil:
			return histories.Reply{}, histories.Definite(fmt.Errorf("nothing was %s, since others were always faster: %w", done, ctx.Err()))
		}
	}
}

// Sum returns the sum of a counter.
func (c *client) Sum(ctx context.Context, key string) (histories.Reply, error) {
	reply, err := c.Get(ctx, key)
	if err == nil && reply.Value.IsNil() {
		reply.Value = histories.Int(0)
	}
	return reply, err
}
