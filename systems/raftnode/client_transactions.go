package raftnode

import (
	"context"
	"fmt"
	"net/http"

	"capsize/histories"
)

// TransactLists carries out reads and appends of lists.
func (c *client) TransactLists(ctx context.Context, micros []histories.Micro) (histories.Reply, error) {
	return c.transact(ctx, nil, micros, integers)
}

// TransactRegisters carries out reads and writes of integers.
func (c *client) TransactRegisters(ctx context.Context, micros []histories.Micro) (histories.Reply, error) {
	return c.transact(ctx, nil, micros, integer)
}

// GetAll reads several keys at one moment.
func (c *client) GetAll(ctx context.Context, keys []string) (histories.Reply, error) {
	var micros []histories.Micro
	for _, key := range keys {
		micros = append(micros, histories.Micro{F: "r", Key: key})
	}
	return c.TransactRegisters(ctx, micros)
}

// SwapAll writes keys if others hold what is expected.
func (c *client) SwapAll(ctx context.Context, expected, written []histories.Micro) (histories.Reply, error) {
	var conditions []map[string]any
	for _, m := range expected {
		condition := map[string]any{"key": m.Key, "absent": true}
		if value, there := m.Value.Int(); there {
			condition = map[string]any{"key": m.Key, "value": number(value)}
		}
		conditions = append(conditions, condition)
	}
	return c.transact(ctx, conditions, written, integer)
}

// transact carries out micro-operations at one moment, if the conditions hold, and fills in what
// was read.
func (c *client) transact(ctx context.Context, conditions []map[string]any, micros []histories.Micro, read func(text *string) (histories.Value, error)) (histories.Reply, error) {
	var actions []map[string]any
	for _, m := range micros {
		action := map[string]any{"op": "get", "key": m.Key}
		if value, _ := m.Value.Int(); m.F == "w" {
			action = map[string]any{"op": "put", "key": m.Key, "value": number(value)}
		} else if m.F == "append" {
			action = map[string]any{"op": "append", "key": m.Key, "value": number(value) + " "}
		}
		actions = append(actions, action)
	}
	answer, err := c.do(ctx, http.MethodPost, "/v1/txn", map[string]any{"if": conditions, "then": actions})
	switch {
	case err != nil:
		return histories.Reply{}, err
	case !answer.Succeeded:
		return histories.Reply{}, &histories.Refusal{}
	case len(answer.Answers) != len(micros):
		return histories.Reply{}, fmt.Errorf("transaction of %d steps: %d answers", len(micros), len(answer.Answers))
	}
	done := make([]histories.Micro, len(micros))
	for i, m := range micros {
		done[i] = m
		if m.F != "r" {
			continue
		}
		if done[i].Value, err = read(answer.Answers[i].Value); err != nil {
			return histories.Reply{}, fmt.Errorf("read %s in a transaction: %w", m.Key, err)
		}
	}
	return histories.Reply{Value: histories.Micros(done...), Revision: answer.Revision}, nil
}
