package raftnode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"capsize/histories"
)

// The items of a space are keys of their own below it. Their names are decimal numbers: up to 9
// they sort as numbers.

func itemKey(space string, item int64) string { return space + "/" + number(item) }

// spaceQuery is the range of the keys below a space, or of a part of them.
func spaceQuery(space, from, to string) url.Values {
	return url.Values{"from": {space + "/" + from}, "to": {space + "/" + to}}
}

// itemBound is where items from a number on begin.
func itemBound(item int64) string {
	if item > 9 {
		return ":" // behind all digits
	}
	return number(item)
}

// PutItem writes an item of a space.
func (c *client) PutItem(ctx context.Context, space string, item, value int64) (histories.Reply, error) {
	return c.Put(ctx, itemKey(space, item), value)
}

// DeleteItem deletes an item of a space. The reply has a revision only if the item was there.
func (c *client) DeleteItem(ctx context.Context, space string, item int64) (histories.Reply, error) {
	return c.remove(ctx, kvPath(itemKey(space, item)))
}

// DeleteItems deletes the items of a space from one up to, not including, another.
func (c *client) DeleteItems(ctx context.Context, space string, from, to int64) (histories.Reply, error) {
	return c.remove(ctx, "/v1/range?"+spaceQuery(space, itemBound(from), itemBound(to)).Encode())
}

func (c *client) remove(ctx context.Context, path string) (histories.Reply, error) {
	answer, err := c.do(ctx, http.MethodDelete, path, nil)
	if err != nil || answer.Deleted == 0 {
		return histories.Reply{}, err
	}
	return histories.Reply{Revision: answer.Revision}, nil
}

// Items returns the items of a space from one up to, not including, another.
func (c *client) Items(ctx context.Context, space string, from, to int64) (histories.Reply, error) {
	answer, err := c.do(ctx, http.MethodGet, "/v1/range?"+spaceQuery(space, itemBound(from), itemBound(to)).Encode(), nil)
	if err != nil {
		return histories.Reply{}, err
	}
	if answer.More {
		return histories.Reply{}, fmt.Errorf("space %s: it has more items than one answer holds", space)
	}
	items := []histories.Micro{}
	for _, e := range answer.Entries {
		value, err := integer(&e.Value)
		if err != nil {
			return histories.Reply{}, fmt.Errorf("item %s: %w", e.Key, err)
		}
		items = append(items, histories.Micro{F: "r", Key: strings.TrimPrefix(e.Key, space+"/"), Value: value, Revision: e.ModRevision})
	}
	return histories.Reply{Value: histories.Micros(items...)}, nil
}

// Watch waits for changes of a space after a revision.
func (c *client) Watch(ctx context.Context, space string, after int64) (histories.Reply, error) {
	query := spaceQuery(space, "", ":")
	query.Set("after", number(after))
	answer, err := c.do(ctx, http.MethodGet, "/v1/watch?"+query.Encode(), nil)
	if forgotten := (*forgotten)(nil); errors.As(err, &forgotten) {
		return histories.Reply{}, &histories.Refusal{Found: histories.Int(forgotten.since), Said: true}
	}
	if err != nil {
		return histories.Reply{}, err
	}
	changes := []histories.Micro{}
	for _, change := range answer.Changes {
		value, err := integer(change.Value)
		if err != nil {
			return histories.Reply{}, fmt.Errorf("watch %s: %s: %w", space, change.Key, err)
		}
		m := histories.Micro{F: "put", Key: strings.TrimPrefix(change.Key, space+"/"), Value: value, Revision: change.Revision}
		if change.Value == nil {
			m.F = "delete"
		}
		changes = append(changes, m)
	}
	return histories.Reply{Value: histories.Micros(changes...), Revision: answer.Revision}, nil
}
