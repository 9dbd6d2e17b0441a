package checkers

import (
	"context"
	"fmt"

	"capsize/checkers/transactions"
	"capsize/histories"
)

// Transactions checks which isolation the transactions of a run had, by the cycles of their
// dependencies: see package transactions. A transaction is an operation "txn" of
// micro-operations on lists ("append" and "r") or on registers ("w" and "r").
type Transactions struct {
	Model  transactions.Model    // which must hold; 0: strict serializability
	Keys   transactions.KeyOrder // what is promised of each register
	Limits Limits
}

// Txn is what an operation is called that is a transaction.
const Txn = "txn"

// Name is "transactions".
func (*Transactions) Name() string { return "transactions" }

const committed = "transactions"

// Check judges all transactions together.
func (t *Transactions) Check(ctx context.Context, run *Run) Result {
	var operations []histories.Operation
	var txns []transactions.Txn
	for _, op := range histories.Operations(run.History) {
		if op.F != Txn {
			continue
		}
		txn, err := transactionOf(op)
		if err != nil {
			return Result{Verdict: Unknown, Summary: fmt.Sprintf("the transaction at event %d cannot be understood: %v", op.Invoked, err)}
		}
		operations, txns = append(operations, op), append(txns, txn)
	}
	if ctx.Err() != nil {
		return Result{Verdict: Unknown, Summary: "the check was interrupted"}
	}
	checked := transactions.Check(txns, transactions.Options{
		Model: t.Model, Keys: t.Keys, Limit: transactions.Limit{Time: t.Limits.Timeout, Memory: int64(t.Limits.Memory)},
	})
	return t.result(run, operations, checked)
}

func (t *Transactions) result(run *Run, operations []histories.Operation, checked transactions.Result) Result {
	found := NewFindings(run, committed)
	found.Count(committed, checked.Txns)
	found.Count("dependencies", checked.Edges)
	for _, a := range checked.Anomalies {
		var core []histories.Operation
		for _, at := range a.Txns {
			core = append(core, operations[at])
		}
		found.Add(string(a.Kind), core, "%s, which %s forbids: %s", a.Kind, a.RulesOut, a.Text)
	}
	result := found.Result()
	for kind, n := range checked.Counts {
		result.Findings.recount(string(kind), n)
	}
	model := t.Model
	if model == 0 {
		model = transactions.StrictSerializable
	}
	switch checked.Verdict {
	case transactions.Invalid:
		result.Verdict, result.Summary = Invalid, fmt.Sprintf("not %s: %s", model, result.Summary)
	case transactions.Unknown:
		result.Verdict, result.Summary = Unknown, "it could not be decided whether the transactions are "+model.String()+": "+checked.Reason
	default:
		// What is found may rule out a stronger model than the one asked for.
		if checked.Txns > 0 {
			result.Verdict = Valid
			result.Summary = fmt.Sprintf("%d transactions with %d dependencies are %s", checked.Txns, checked.Edges, model)
			if len(checked.Violated) > 0 {
				result.Summary += fmt.Sprintf(", though not %s", checked.Violated[0])
			}
		}
	}
	return result
}

func transactionOf(op histories.Operation) (transactions.Txn, error) {
	txn := transactions.Txn{ID: op.Invoked, Process: op.Process, Call: int64(op.Invoked), Return: int64(op.Returned)}
	value := op.Input
	switch op.Type {
	case histories.OK:
		value = op.Output
	case histories.Fail:
		txn.Type = transactions.Fail
	default:
		txn.Type, txn.Return = transactions.Info, transactions.Never
	}
	micros, ok := value.Micros()
	if !ok {
		return txn, fmt.Errorf("%s is no list of micro-operations", value)
	}
	for _, m := range micros {
		micro := transactions.Micro{F: m.F, Key: m.Key, Nil: m.Value.IsNil()}
		single, isSingle := m.Value.Int()
		list, isList := m.Value.Ints()
		switch {
		case m.F != "r" && m.F != "w" && m.F != "append":
			return txn, fmt.Errorf("micro-operation %q: want r, w or append", m.F)
		case m.F != "r" && !isSingle:
			return txn, fmt.Errorf("%s %s %s: want an integer", m.F, m.Key, m.Value)
		case isSingle:
			micro.Value = single
		case isList:
			micro.List, micro.Nil = list, len(list) == 0
		}
		txn.Micros = append(txn.Micros, micro)
	}
	return txn, nil
}
