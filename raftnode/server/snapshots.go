package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	"capsize/raftnode/disk"
	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
	"capsize/raftnode/replica"
)

// restoreStore reads the state machine back from the snapshot that counts; nil if there is
// none.
func (s *Server) restoreStore() (*kv.Store, error) {
	snapshot, err := s.disk.Storage().Snapshot()
	if errors.Is(err, raft.ErrSnapshotTemporarilyUnavailable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, content, err := s.disk.LoadSnapshot(snapshot.Metadata.Index)
	if err != nil {
		return nil, err
	}
	store, err := kv.Restore(content)
	return store, errors.Join(err, content.Close())
}

// saveSnapshot writes out a snapshot in a goroutine of its own; the replica goes on. It is
// told when the snapshot is durable and the log says so.
func (s *Server) saveSnapshot(taken *replica.Snapshot) {
	s.working.Go(func() {
		err := s.disk.SaveSnapshot(taken.Snapshot, func(w io.Writer) error {
			_, err := taken.View.WriteTo(w)
			return err
		})
		s.metrics.snapshot("taken", err)
		s.writer.Do(func(d *disk.Disk) error {
			if err != nil {
				return err // what the disk does not take it must not be trusted with
			}
			if err := d.Taken(taken.Metadata); err != nil {
				return err
			}
			s.working.Go(func() { _ = s.call(context.Background(), s.replica.SnapshotSaved) }) // fails only where the node stops
			return nil
		})
	})
}

// sendSnapshot streams a snapshot to a node that lacks entries which are no longer in the
// log, beside the ordinary messages.
func (s *Server) sendSnapshot(m raft.Message) {
	done := func(err error) {
		s.metrics.snapshot("sent", err)
		if err != nil {
			s.config.Logf("send the snapshot at %d to %s: %v", m.Snapshot.Metadata.Index, s.book.name(m.To), err)
		}
		_ = s.call(context.Background(), func() { s.replica.SnapshotSent(m.To, err == nil) }) // fails only where the node stops
	}
	_, content, err := s.disk.LoadSnapshot(m.Snapshot.Metadata.Index)
	if err != nil {
		s.working.Go(func() { done(err) }) // a newer one has taken its place: it will be sent instead
		return
	}
	s.transport.SendSnapshot(m.To, raft.EncodeMessage(nil, m), content, done)
}

var errBusy = errors.New("another snapshot is being received")

// receiveSnapshot takes a snapshot from a peer: it restores the state machine while the
// content is written to the disk, and hands both to the replica when all is durable.
func (s *Server) receiveSnapshot(from uint64, payload []byte, content io.Reader) (err error) {
	defer func() { s.metrics.snapshot("received", err) }()
	m, err := raft.DecodeMessage(payload)
	if err != nil || m.Type != raft.MsgSnap || m.Snapshot == nil || m.To != s.id {
		return fmt.Errorf("node %d sends no snapshot for this node: %w", from, err)
	}
	if !s.incoming.TryLock() {
		return errBusy
	}
	defer s.incoming.Unlock()
	index := m.Snapshot.Metadata.Index
	var store *kv.Store
	err = s.disk.SaveSnapshot(m.Snapshot, func(w io.Writer) (err error) {
		store, err = kv.Restore(io.TeeReader(content, w))
		return err
	})
	if err != nil {
		return fmt.Errorf("receive the snapshot at %d: %w", index, err)
	}
	if store.Applied() != index {
		return fmt.Errorf("receive the snapshot at %d: its content is of %d", index, store.Applied())
	}
	s.config.Logf("received the snapshot at %d from %s", index, s.book.name(from))
	return s.call(context.Background(), func() { s.replica.ReceiveSnapshot(m, store) })
}
