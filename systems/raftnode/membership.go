package raftnode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"capsize/clusters"
	"capsize/histories"
	"capsize/systems"
)

const (
	changeTry   = 2 * time.Second       // for one node to make a change, or to say why not
	changePause = 30 * time.Millisecond // between two tries
)

// Joining is the command line of a node that was added while it had no data.
func (s *System) Joining(c clusters.Cluster, node, through string) clusters.Process {
	return s.process(c, node, "--join", c.Listen(through, clientPort))
}

// Members returns the members as a node has applied them.
func (s *System) Members(ctx context.Context, c clusters.Cluster, node string) ([]systems.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	var body struct {
		Members []struct {
			ID    uint64 `json:"id"`
			Name  string `json:"name"`
			Voter bool   `json:"voter"`
			Joint bool   `json:"joint"`
		} `json:"members"`
	}
	if err := s.call(ctx, c, node, http.MethodGet, "/v1/members", nil, &body); err != nil {
		return nil, fmt.Errorf("members, as %s knows them: %w", node, err)
	}
	var members []systems.Member
	for _, m := range body.Members {
		members = append(members, systems.Member{Node: m.Name, ID: m.ID, Voter: m.Voter, Joint: m.Joint})
	}
	return members, nil
}

// Change asks whoever leads. A try whose outcome is unknown is followed by a look at the
// members: a change that is in force must not be asked for again, since it would be refused,
// or worse, be made of the member that was just added.
func (s *System) Change(ctx context.Context, c clusters.Cluster, changes ...systems.MemberChange) error {
	type change struct {
		Op      systems.MemberOp `json:"op"`
		Name    string           `json:"name"`
		Address string           `json:"address,omitempty"`
	}
	var body struct {
		Changes []change `json:"changes"`
	}
	for _, wanted := range changes {
		one := change{Op: wanted.Op, Name: wanted.Node}
		if wanted.Op == systems.AddVoter || wanted.Op == systems.AddLearner {
			one.Address = c.Listen(wanted.Node, peerPort)
		}
		body.Changes = append(body.Changes, one)
	}
	before, err := s.leadersView(ctx, c)
	if err != nil {
		return histories.Definite(fmt.Errorf("change the members %v: %w", changes, err))
	}
	err = s.persist(ctx, c, "/v1/members", body, func(leader string) bool {
		now, err := s.Members(ctx, c, leader)
		return err == nil && inForce(before, now, changes)
	})
	if err != nil {
		return fmt.Errorf("change the members %v: %w", changes, err)
	}
	return nil
}

// Transfer asks whoever knows a leader.
func (s *System) Transfer(ctx context.Context, c clusters.Cluster, to string) error {
	body := map[string]string{"to": to}
	if err := s.persist(ctx, c, "/v1/leader", body, func(leader string) bool { return leader == to }); err != nil {
		return fmt.Errorf("make %s lead: %w", to, err)
	}
	return nil
}

// inForce reports whether changes have been made since the list was as before.
func inForce(before, now []systems.Member, changes []systems.MemberChange) bool {
	last := make(map[string]systems.MemberOp)
	for _, change := range changes {
		last[change.Node] = change.Op
	}
	for node, op := range last {
		was, is := find(before, node), find(now, node)
		var made bool
		switch op {
		case systems.RemoveMember:
			made = is.ID == 0
		case systems.AddVoter:
			made = is.ID != 0 && is.ID != was.ID && is.Voter
		case systems.AddLearner:
			made = is.ID != 0 && is.ID != was.ID && !is.Voter
		case systems.PromoteMember:
			made = is.Voter
		case systems.DemoteMember:
			made = is.ID != 0 && !is.Voter
		}
		if !made || is.Joint {
			return false
		}
	}
	return true
}

func find(members []systems.Member, node string) systems.Member {
	i := slices.IndexFunc(members, func(m systems.Member) bool { return m.Node == node })
	if i < 0 {
		return systems.Member{}
	}
	return members[i]
}

// leadersView returns the members as the leader knows them, when there is one.
func (s *System) leadersView(ctx context.Context, c clusters.Cluster) ([]systems.Member, error) {
	for {
		leader, err := s.leader(ctx, c)
		if err == nil {
			var members []systems.Member
			if members, err = s.Members(ctx, c, leader); err == nil {
				return members, nil
			}
		}
		if !pause(ctx) {
			return nil, fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

// leader returns the node that leads in the highest term.
func (s *System) leader(ctx context.Context, c clusters.Cluster) (string, error) {
	leader, term := "", uint64(0)
	var problems []error
	for _, node := range c.Nodes() {
		status, err := s.Status(ctx, c, node)
		problems = append(problems, err)
		if err == nil && status.Role == "leader" && status.Term > term {
			leader, term = node, status.Term
		}
	}
	if leader == "" {
		return "", fmt.Errorf("no node leads: %w", errors.Join(problems...))
	}
	return leader, nil
}

// persist posts to the leader of the moment until it did what it was asked for, or ctx ends.
// A refusal may pass: a change that is under way, a learner that is behind, an election.
func (s *System) persist(ctx context.Context, c clusters.Cluster, path string, body any, done func(leader string) bool) error {
	var last error
	unknown := false // what became of some try
	for {
		leader, err := s.leader(ctx, c)
		if err == nil && unknown && done(leader) {
			return nil
		}
		if err == nil {
			tryCtx, cancel := context.WithTimeout(ctx, changeTry)
			err = s.call(tryCtx, c, leader, http.MethodPost, path, body, nil)
			cancel()
			if err == nil {
				return nil
			}
			unknown = unknown || histories.Outcome(err) != histories.Fail
			last = fmt.Errorf("%s: %w", leader, err)
		} else if last == nil {
			last = err
		}
		if !pause(ctx) {
			err := fmt.Errorf("%v (%w)", last, ctx.Err()) // its mark must not speak for earlier tries
			if unknown {
				return err
			}
			return histories.Definite(err)
		}
	}
}

// pause waits a little; it reports whether ctx is still live.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(changePause):
		return true
	}
}

// call makes one request of one node. The error is definite where the node says so.
func (s *System) call(ctx context.Context, c clusters.Cluster, node, method, path string, body, into any) error {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return histories.Definite(err)
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.Listen(node, clientPort)+path, reader)
	if err != nil {
		return histories.Definite(err)
	}
	if end, bounded := ctx.Deadline(); bounded { // it answers a little before nobody listens any more
		request.Header.Set("Capsize-Timeout", max(time.Until(end)*9/10, time.Millisecond).String())
	}
	response, err := s.status.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	data, err := io.ReadAll(io.LimitReader(response.Body, answerMost))
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	var got answer
	if err := json.Unmarshal(data, &got); err != nil {
		return fmt.Errorf("%s %s: answer %s is no JSON: %w", method, path, response.Status, err)
	}
	if err := got.verdict(request, response); err != nil || into == nil {
		return err
	}
	return json.Unmarshal(data, into)
}
