package server

import (
	"context"
	"fmt"
	"net/http"

	"capsize/raftnode/replica"
)

// memberBody is a member of the cluster as of what this node has applied.
type memberBody struct {
	ID      uint64 `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`           // else a learner
	Joint   bool   `json:"joint,omitempty"` // a change that makes or unmakes it a voter is under way
	Match   uint64 `json:"match,omitempty"` // on the leader: the last entry known to be durable there
}

type membersBody struct {
	Members []memberBody `json:"members"`
}

func (s *Server) serveMembers(c *exchange) {
	body, err := s.members()
	if err != nil {
		fail(c, http.StatusServiceUnavailable, true, err.Error())
		return
	}
	answer(c, http.StatusOK, body)
}

func (s *Server) members() (membersBody, error) {
	body := membersBody{Members: []memberBody{}}
	err := s.call(context.Background(), func() {
		for _, m := range s.replica.Members() {
			body.Members = append(body.Members, memberBody{m.ID, m.Name, m.Address, m.Voter, m.Joint, m.Match})
		}
	})
	return body, err
}

var changeOps = map[string]replica.ChangeOp{
	"add": replica.AddVoter, "add-learner": replica.AddLearner, "promote": replica.Promote,
	"demote": replica.Demote, "remove": replica.Remove, "update": replica.Update,
}

type memberChangeBody struct {
	Op      string `json:"op"`
	Name    string `json:"name"`
	Address string `json:"address"`
}

func (b memberChangeBody) change() (replica.Change, error) {
	op, known := changeOps[b.Op]
	if !known {
		return replica.Change{}, fmt.Errorf("op %q: want add, add-learner, promote, demote, remove or update", b.Op)
	}
	if err := validateName("member name", b.Name); err != nil {
		return replica.Change{}, err
	}
	needsAddress := op == replica.AddVoter || op == replica.AddLearner || op == replica.Update
	switch {
	case needsAddress:
		if err := validateAddress("member "+b.Name, b.Address); err != nil {
			return replica.Change{}, err
		}
	case b.Address != "":
		return replica.Change{}, fmt.Errorf("%s %s: it takes no address", b.Op, b.Name)
	}
	return replica.Change{Op: op, Name: b.Name, Address: b.Address}, nil
}

// serveChangeMembers makes changes of the members. Several take effect together. The answer
// comes when they have, and lists the members then.
func (s *Server) serveChangeMembers(c *exchange) {
	var body struct {
		Changes []memberChangeBody `json:"changes"`
	}
	if !decode(c, &body, `{"changes": [{"op": "add", "name": string, "address": "host:port"}]}`) {
		return
	}
	q := replica.Request{Kind: replica.Reconfigure}
	for _, wanted := range body.Changes {
		change, err := wanted.change()
		if err != nil {
			fail(c, http.StatusBadRequest, true, err.Error())
			return
		}
		q.Changes = append(q.Changes, change)
	}
	s.serve(c, "change members", q, func(replica.Reply) any {
		members, err := s.members()
		if err != nil {
			return struct{}{} // it was done; the node stops just now
		}
		return members
	})
}

// serveTransfer makes another member lead. The answer comes when it does.
func (s *Server) serveTransfer(c *exchange) {
	var body struct {
		To string `json:"to"`
	}
	if !decode(c, &body, `{"to": member}`) {
		return
	}
	s.serve(c, "transfer", replica.Request{Kind: replica.Transfer, To: body.To}, func(replica.Reply) any { return struct{}{} })
}

// serveSnapshot takes a snapshot now. The answer comes when it is durable.
func (s *Server) serveSnapshot(c *exchange) {
	s.serve(c, "snapshot", replica.Request{Kind: replica.TakeSnapshot}, func(replica.Reply) any {
		return struct {
			Index uint64 `json:"index"`
		}{s.status.Load().Snapshot}
	})
}
