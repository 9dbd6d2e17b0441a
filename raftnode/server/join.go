package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"capsize/raftnode/disk"
	"capsize/raftnode/replica"
)

// joinTimeout bounds the question to the member that is asked.
const joinTimeout = 5 * time.Second

// identify finds out which member this node is, and which others it may have to reach before
// its log tells it: from the configuration, from its data, or from the cluster it joins.
func identify(c *Config) (self uint64, known []replica.Member, err error) {
	known = c.first()
	for _, m := range known {
		if m.Name == c.Name {
			return m.ID, known, nil
		}
	}
	self, found, err := disk.Owner(c.FS, c.DataDir)
	if err != nil || found {
		return self, nil, err
	}
	known, err = askMembers(c.Join)
	if err != nil {
		return 0, nil, fmt.Errorf("join the cluster of %s: %w", c.Join, err)
	}
	for _, m := range known {
		if m.Name == c.Name {
			return m.ID, known, nil
		}
	}
	return 0, nil, fmt.Errorf("join the cluster of %s: %s is no member there: add it first, with POST /v1/members to its leader", c.Join, c.Name)
}

func askMembers(address string) ([]replica.Member, error) {
	ctx, cancel := context.WithTimeout(context.Background(), joinTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/members", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s: %s", response.Status, data)
	}
	var body membersBody
	if err := json.Unmarshal(data, &body); err != nil {
		return nil, fmt.Errorf("its list of members: %w", err)
	}
	var members []replica.Member
	for _, m := range body.Members {
		members = append(members, replica.Member{ID: m.ID, Name: m.Name, Address: m.Address})
	}
	return members, nil
}
