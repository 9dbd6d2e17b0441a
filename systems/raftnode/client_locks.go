package raftnode

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"capsize/histories"
)

// A client's session is its name as an owner, and it remembers the tokens of what it holds.

// Acquire takes a lock that nobody else holds.
func (c *client) Acquire(ctx context.Context, lock string) (histories.Reply, error) {
	return c.take(ctx, lock, "acquire")
}

// Steal takes a lock, whoever holds it.
func (c *client) Steal(ctx context.Context, lock string) (histories.Reply, error) {
	return c.take(ctx, lock, "steal")
}

func lockPath(lock, what string) string { return "/v1/locks/" + url.PathEscape(lock) + "/" + what }

func (c *client) take(ctx context.Context, lock, how string) (histories.Reply, error) {
	answer, err := c.do(ctx, http.MethodPost, lockPath(lock, how), map[string]any{"owner": c.session})
	if err != nil {
		return histories.Reply{}, err
	}
	if c.tokens == nil {
		c.tokens = make(map[string]int64)
	}
	c.tokens[lock] = answer.Token
	return histories.Reply{Revision: answer.Token}, nil
}

// Release lets go of a lock that this client took.
func (c *client) Release(ctx context.Context, lock string) (histories.Reply, error) {
	_, err := c.do(ctx, http.MethodPost, lockPath(lock, "release"), map[string]any{"owner": c.session, "token": c.tokens[lock]})
	return histories.Reply{}, err
}

// PutUnder writes a key if the client's token of a lock is still the newest one.
func (c *client) PutUnder(ctx context.Context, lock, key string, value int64) (histories.Reply, error) {
	token := c.tokens[lock]
	if token == 0 {
		return histories.Reply{}, histories.Definite(fmt.Errorf("put %s under %s: this client never took that lock", key, lock))
	}
	answer, err := c.do(ctx, http.MethodPut, kvPath(key), map[string]any{
		"value": number(value), "fence": map[string]any{"lock": lock, "token": token},
	})
	return histories.Reply{Revision: answer.Revision}, err
}
