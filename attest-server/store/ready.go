package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// ErrClock says that this machine's clock is before what has happened already.
var ErrClock = errors.New("the clock is wrong")

const (
	// probeEvery is how often Ready writes, if nothing else does.
	probeEvery = 10 * time.Second
	// retryProbe is how often it does if something went wrong.
	retryProbe = time.Second
	// maxClockSkew is how far clocks of servers on one database may differ.
	maxClockSkew = 10 * time.Second
)

// A probe's size. A full disk may have room for a little.
const (
	probeSize      = 2 << 10
	retryProbeSize = 64 << 10
)

// readiness knows whether guests could attest, and remembers what it found out
// last.
type readiness struct {
	*core
	answers func(context.Context) error // says whether the store does, under the MasterKey in use

	mu    sync.Mutex
	at    time.Time
	err   error
	known int64 // writes at that time
}

// Ready says whether a guest could attest now: the store answers, has this
// program's schema, takes a write, and the clock is not before the last entry
// of the audit log.
func (s *readiness) Ready(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.answers(ctx); err != nil {
		return err
	}
	now := s.clock()
	if err := s.checkClock(ctx, now); err != nil {
		return err
	}
	writes, failed := s.writer.Last()
	if writes != s.known && !failed {
		s.known, s.at, s.err = writes, now, nil
	}
	wait, size := probeEvery, probeSize
	if failed || s.err != nil {
		wait, size = retryProbe, retryProbeSize
	}
	if age := now.Sub(s.at); age < 0 || age >= wait {
		s.err, s.at = s.probe(ctx, size), now
		s.known, _ = s.writer.Last()
	}
	return s.err
}

// checkClock compares with the last entry alone, so that one made while the
// clock was ahead does no harm for longer than until the next.
func (s *readiness) checkClock(ctx context.Context, now time.Time) error {
	var last int64
	err := s.db.QueryRowContext(ctx, "SELECT at FROM audit ORDER BY seq DESC LIMIT 1").Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading audit: %w", err)
	}
	if at := fromMilli(last); now.Add(maxClockSkew).Before(at) {
		return fmt.Errorf("%w: it is %s, the last audit entry was made %s", ErrClock, now.UTC().Format(time.RFC3339), at.Format(time.RFC3339))
	}
	return nil
}

// probe writes as a guest's attestation would.
func (s *readiness) probe(ctx context.Context, size int) error {
	b := make([]byte, size)
	if _, err := io.ReadFull(s.rand, b); err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		if err := s.db.CheckSchema(tx); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value", probeName, b)
		return err
	})
}
