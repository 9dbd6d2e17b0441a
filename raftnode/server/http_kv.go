package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"unicode/utf8"

	"capsize/raftnode/kv"
	"capsize/raftnode/replica"
)

// text is a string of any bytes in JSON: a string where it is valid UTF-8, else
// {"base64": "..."}, which is understood for any.
type text string

type base64Text struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(base64Text{[]byte(t)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var encoded base64Text
		err := json.Unmarshal(data, &encoded)
		*t = text(encoded.Base64)
		return err
	}
	return json.Unmarshal(data, (*string)(t))
}

// foundBody is a key's value and its numbers; the value is null where it holds nothing.
type foundBody struct {
	Value          *text  `json:"value"`
	CreateRevision uint64 `json:"createRevision,omitempty"`
	ModRevision    uint64 `json:"modRevision,omitempty"`
	Version        uint64 `json:"version,omitempty"`
	Revision       uint64 `json:"revision"` // of the store
}

func foundOf(result kv.Result) foundBody {
	body := foundBody{Revision: result.Revision}
	if e := result.Entry; result.Present {
		body.Value = (*text)(&e.Value)
		body.CreateRevision, body.ModRevision, body.Version = e.CreateRevision, e.ModRevision, e.Version
	}
	return body
}

type entryBody struct {
	Key            text   `json:"key"`
	Value          text   `json:"value"`
	CreateRevision uint64 `json:"createRevision"`
	ModRevision    uint64 `json:"modRevision"`
	Version        uint64 `json:"version"`
}

type rangeBody struct {
	Entries  []entryBody `json:"entries"`
	More     bool        `json:"more"` // there are more than the limit lets through
	Revision uint64      `json:"revision"`
}

func entriesOf(entries []kv.Entry) []entryBody {
	list := make([]entryBody, len(entries))
	for i, e := range entries {
		list[i] = entryBody{text(e.Key), text(e.Value), e.CreateRevision, e.ModRevision, e.Version}
	}
	return list
}

type changeBody struct {
	Revision uint64  `json:"revision"`
	Deleted  *uint64 `json:"deleted,omitempty"` // keys that were there
}

func changed(reply replica.Reply) any { return changeBody{Revision: reply.Result.Revision} }

func deleted(reply replica.Reply) any {
	return changeBody{Revision: reply.Result.Revision, Deleted: &reply.Result.Deleted}
}

// fenceBody is the lock, and the token, under which alone a change may apply.
type fenceBody struct {
	Lock  string `json:"lock"`
	Token uint64 `json:"token"`
}

func (f *fenceBody) fence() kv.Fence {
	if f == nil {
		return kv.Fence{}
	}
	return kv.Fence{Lock: f.Lock, Token: f.Token}
}

// expectBody is what a key must be: one of these.
type expectBody struct {
	Value       *text   `json:"value"`
	Absent      bool    `json:"absent"`
	Present     bool    `json:"present"`
	Version     *uint64 `json:"version"`
	ModRevision *uint64 `json:"modRevision"`
}

func (e expectBody) expectation() (kv.Expectation, error) {
	var given []kv.Expectation
	if e.Value != nil {
		given = append(given, kv.ValueIs(string(*e.Value)))
	}
	if e.Absent {
		given = append(given, kv.Absent())
	}
	if e.Present {
		given = append(given, kv.Present())
	}
	if e.Version != nil {
		given = append(given, kv.VersionIs(*e.Version))
	}
	if e.ModRevision != nil {
		given = append(given, kv.ModRevisionIs(*e.ModRevision))
	}
	if len(given) != 1 {
		return kv.Expectation{}, errors.New(`want one of "value", "absent", "present", "version" and "modRevision"`)
	}
	return given[0], nil
}

// readKind is how consistent a read is to be, as its query says. It answers itself, and returns
// false, where that says something else.
func readKind(c *exchange) (kind replica.Kind, ok bool) {
	switch asked := c.query("consistency"); asked {
	case "", "linearizable":
		return replica.Read, true
	case "stale":
		return replica.ReadNow, true
	default:
		fail(c, http.StatusBadRequest, true, fmt.Sprintf("consistency %q: want linearizable or stale", asked))
		return 0, false
	}
}

func (s *Server) serveGet(c *exchange) {
	kind, ok := readKind(c)
	if !ok {
		return
	}
	q := replica.Request{Kind: kind, Command: kv.Command{Op: kv.Get, Key: c.param(0)}}
	s.serve(c, "get", q, func(reply replica.Reply) any { return foundOf(reply.Result) })
}

func (s *Server) propose(c *exchange, command kv.Command, done func(replica.Reply) any) {
	s.serve(c, command.Op.String(), replica.Request{Command: command}, done)
}

type putBody struct {
	Value *text      `json:"value"`
	Fence *fenceBody `json:"fence"`
}

func (s *Server) servePut(c *exchange)    { s.serveValue(c, kv.Put) }
func (s *Server) serveAppend(c *exchange) { s.serveValue(c, kv.Append) }

func (s *Server) serveValue(c *exchange, op kv.Op) {
	const want = `{"value": string, "fence": {"lock": string, "token": number} if wanted}`
	var body putBody
	if !decode(c, &body, want) {
		return
	}
	if body.Value == nil {
		fail(c, http.StatusBadRequest, true, "body: want "+want)
		return
	}
	s.propose(c, kv.Command{Op: op, Key: c.param(0), Value: string(*body.Value), Fence: body.Fence.fence()}, changed)
}

func (s *Server) serveCompareAndSwap(c *exchange) {
	const want = `{"expected": {"value": string}, "value": string}, or expected {"absent": true}, {"present": true}, {"version": number} or {"modRevision": number}`
	var body struct {
		putBody
		Expected expectBody `json:"expected"`
	}
	if !decode(c, &body, want) {
		return
	}
	expected, err := body.Expected.expectation()
	if body.Value == nil || err != nil {
		fail(c, http.StatusBadRequest, true, "body: want "+want)
		return
	}
	s.propose(c, kv.Command{
		Op: kv.CompareAndSwap, Key: c.param(0), Value: string(*body.Value), Expected: expected, Fence: body.Fence.fence(),
	}, changed)
}

func (s *Server) serveDelete(c *exchange) {
	s.propose(c, kv.Command{Op: kv.Delete, Key: c.param(0)}, deleted)
}

func (s *Server) serveRange(c *exchange) {
	limit := 0
	if asked := c.query("limit"); asked != "" {
		var err error
		if limit, err = strconv.Atoi(asked); err != nil || limit < 1 || limit > kv.MaxRange {
			fail(c, http.StatusBadRequest, true, fmt.Sprintf("limit %q: want 1 to %d", asked, kv.MaxRange))
			return
		}
	}
	kind, ok := readKind(c)
	if !ok {
		return
	}
	q := replica.Request{Kind: kind, Command: kv.Command{Op: kv.Range, Key: c.query("from"), End: c.query("to"), Limit: limit}}
	s.serve(c, "range", q, func(reply replica.Reply) any {
		return rangeBody{entriesOf(reply.Result.Entries), reply.Result.More, reply.Result.Revision}
	})
}

func (s *Server) serveDeleteRange(c *exchange) {
	if c.query("from") == "" && c.query("to") == "" && c.query("all") != "true" {
		fail(c, http.StatusBadRequest, true, "delete a range: want from, to, or both; all=true deletes every key")
		return
	}
	s.propose(c, kv.Command{Op: kv.DeleteRange, Key: c.query("from"), End: c.query("to")}, deleted)
}

type actionBody struct {
	Op    string `json:"op"` // put, append, delete, get, range
	Key   text   `json:"key"`
	Value text   `json:"value"`
	From  text   `json:"from"`
	To    text   `json:"to"`
	Limit int    `json:"limit"`
}

func (a actionBody) action() (kv.Action, error) {
	for _, op := range [...]kv.Op{kv.Put, kv.Append, kv.Delete, kv.Get} {
		if a.Op == op.String() {
			return kv.Action{Op: op, Key: string(a.Key), Value: string(a.Value)}, nil
		}
	}
	if a.Op == kv.Range.String() {
		return kv.Action{Op: kv.Range, Key: string(a.From), End: string(a.To), Limit: a.Limit}, nil
	}
	return kv.Action{}, fmt.Errorf("op %q: want put, append, delete, get or range", a.Op)
}

type txnBody struct {
	If []struct {
		Key text `json:"key"`
		expectBody
	} `json:"if"`
	Then  []actionBody `json:"then"`
	Else  []actionBody `json:"else"`
	Fence *fenceBody   `json:"fence"`
}

func (b *txnBody) command() (kv.Command, error) {
	c := kv.Command{Op: kv.Txn, Fence: b.Fence.fence()}
	for i, condition := range b.If {
		expected, err := condition.expectation()
		if err != nil {
			return c, fmt.Errorf("if %d: %w", i+1, err)
		}
		c.Compares = append(c.Compares, kv.Compare{Key: string(condition.Key), Expectation: expected})
	}
	for _, branch := range [...]struct {
		name string
		from []actionBody
		to   *[]kv.Action
	}{{"then", b.Then, &c.Then}, {"else", b.Else, &c.Else}} {
		for i, a := range branch.from {
			action, err := a.action()
			if err != nil {
				return c, fmt.Errorf("%s %d: %w", branch.name, i+1, err)
			}
			*branch.to = append(*branch.to, action)
		}
	}
	return c, nil
}

// answerBody is what an action of a transaction came upon: foundBody's or rangeBody's
// fields, or how many keys it deleted.
type answerBody struct {
	Value   *text       `json:"value,omitempty"`
	Entries []entryBody `json:"entries,omitempty"`
	More    bool        `json:"more,omitempty"`
	Deleted uint64      `json:"deleted,omitempty"`
}

func (s *Server) serveTxn(c *exchange) {
	var body txnBody
	if !decode(c, &body, `{"if": [{"key": string, "value": string}], "then": [{"op": string, "key": string, "value": string}], "else": [...]}`) {
		return
	}
	command, err := body.command()
	if err != nil {
		fail(c, http.StatusBadRequest, true, "body: "+err.Error())
		return
	}
	s.propose(c, command, func(reply replica.Reply) any {
		answers := make([]answerBody, len(reply.Result.Answers))
		for i, found := range reply.Result.Answers {
			answers[i] = answerBody{Entries: entriesOf(found.Entries), More: found.More, Deleted: found.Deleted}
			if value := text(found.Entry.Value); found.Present {
				answers[i].Value = &value
			}
		}
		return struct {
			Succeeded bool         `json:"succeeded"`
			Answers   []answerBody `json:"answers"`
			Revision  uint64       `json:"revision"`
		}{reply.Result.Succeeded, answers, reply.Result.Revision}
	})
}

// lockBody is who holds a lock; nobody where owner is empty.
type lockBody struct {
	Owner string `json:"owner"`
	Token uint64 `json:"token"`
}

func lockOf(reply replica.Reply) lockBody {
	return lockBody{reply.Result.Lock.Owner, reply.Result.Lock.Token}
}

func holder(reply replica.Reply) any { return lockOf(reply) }

func (s *Server) serveLock(c *exchange) {
	q := replica.Request{Kind: replica.ReadLock, Command: kv.Command{Key: c.param(0)}}
	s.serve(c, "lock", q, holder)
}

func (s *Server) serveLockChange(c *exchange) {
	op, known := map[string]kv.Op{"acquire": kv.Acquire, "steal": kv.Steal, "release": kv.Release}[c.param(1)]
	if !known {
		fail(c, http.StatusNotFound, true, fmt.Sprintf("lock operation %q: want acquire, steal or release", c.param(1)))
		return
	}
	var body struct {
		Owner string `json:"owner"`
		Token uint64 `json:"token"`
	}
	if !decode(c, &body, `{"owner": string}, and "token": number to release`) {
		return
	}
	s.propose(c, kv.Command{Op: op, Key: c.param(0), Owner: body.Owner, Token: body.Token}, holder)
}
