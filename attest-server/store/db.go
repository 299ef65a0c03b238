package store

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

const (
	checkName  = "master key check"
	checkPlain = "ccrun store v1"
	maxBatch   = 64
	maxConns   = 8
)

// DB is a store in a database. All writes go through one goroutine that
// commits whatever has queued up in one transaction, so that concurrent
// handshakes share the disk's flush. A write that was acknowledged is on disk.
type DB struct {
	db     *sql.DB
	engine engine
	sealer *masterkey.Sealer
	opts   Options

	registrations registrations

	mu     sync.RWMutex // guards closed against sends on writes
	closed bool
	writes chan write
	done   chan struct{}

	check atomic.Pointer[[]byte] // sealed check value of the MasterKey in use

	// Only the write loop uses these, and open before it.
	auditKey ed25519.PrivateKey // nil without the MasterKey
	head     kbs.AuditHead      // signed last
	audited  bool               // the chain may have moved since
}

type write struct {
	do     func(*sql.Tx) error
	result chan error
}

// open takes db over, also on error.
func open(ctx context.Context, db *sql.DB, e engine, o Options, check func(*DB, context.Context) error) (*DB, error) {
	err := o.check()
	s := &DB{db: db, engine: e, opts: o, writes: make(chan write, maxBatch), done: make(chan struct{})}
	if s.opts.SessionRecords <= 0 {
		s.opts.SessionRecords = 10000
	}
	if err == nil && o.MasterKey.Len() != 0 {
		s.sealer, err = masterkey.NewSealer(o.MasterKey, o.Rand)
	}
	if err == nil {
		db.SetMaxOpenConns(maxConns)
		db.SetMaxIdleConns(maxConns)
		err = migrate(ctx, db, e)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go s.writeLoop()
	err = check(s, ctx)
	if err == nil {
		err = s.openAudit(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close waits for pending writes and closes the file.
func (s *DB) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.writes)
	s.mu.Unlock()
	<-s.done
	return s.db.Close()
}

// Shared says whether several servers may have the store open at once.
func (s *DB) Shared() bool { return s.engine.served() }

// Warnings are what the database's operator should change.
func (s *DB) Warnings(ctx context.Context) ([]string, error) {
	return s.engine.warnings(ctx, s.db, s.opts.Clock())
}

// Check says whether the store answers and is for this process to write.
func (s *DB) Check(ctx context.Context) error {
	var check []byte
	err := s.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", checkName).Scan(&check)
	if err != nil || s.sealer == nil {
		return err
	}
	if s.follows(check) {
		return nil
	}
	// Somebody else changed the MasterKey: every write would follow, or refuse.
	return s.write(ctx, func(*sql.Tx) error { return nil })
}

func (s *DB) writeCheck(ctx context.Context) error {
	sealed, err := s.sealer.Seal(secret.New([]byte(checkPlain)), masterkey.Location("meta", checkName))
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?)", checkName, sealed)
		return err
	})
}

// verifyCheck finds a wrong master key at start, not at the first release.
func (s *DB) verifyCheck(ctx context.Context) error {
	if s.sealer == nil {
		return nil
	}
	var sealed []byte
	err := s.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", checkName).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return errors.New("no master key check value: this is no complete store, run `attest-server init` on a new directory")
	}
	if err != nil {
		return err
	}
	return s.adopt(sealed)
}

// write runs do in a transaction and returns when it is on disk. Once queued it
// is waited for, whatever ctx says: do uses its caller's variables.
func (s *DB) write(ctx context.Context, do func(*sql.Tx) error) error {
	w := write{do: do, result: make(chan error, 1)}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return errors.New("store is closed")
	}
	select {
	case s.writes <- w:
		s.mu.RUnlock()
	case <-ctx.Done():
		s.mu.RUnlock()
		return ctx.Err()
	}
	return <-w.result
}

func (s *DB) writeLoop() {
	defer close(s.done)
	for w := range s.writes {
		batch := s.gather(append(make([]write, 0, maxBatch), w))
		// Whoever is about to write gets on board: on a busy server that
		// divides the number of flushes, on an idle one nobody else is ready.
		for had := 0; had < len(batch); {
			had = len(batch)
			runtime.Gosched()
			batch = s.gather(batch)
		}
		s.commit(batch)
	}
}

// gather adds what has queued up to batch.
func (s *DB) gather(batch []write) []write {
	for len(batch) < maxBatch {
		select {
		case w, ok := <-s.writes:
			if !ok {
				return batch
			}
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// commit runs every write of the batch in a savepoint of its own, so that one
// refused write does not undo its neighbours.
func (s *DB) commit(batch []write) {
	errs := make([]error, len(batch))
	head := s.head
	err := func() error {
		tx, err := s.db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := s.engine.begin(tx); err != nil {
			return err
		}
		if err := s.followMasterKey(tx); err != nil {
			return err
		}
		for i, w := range batch {
			if errs[i], err = inSavepoint(tx, w.do); err != nil {
				return err
			}
		}
		if head, err = s.signHead(tx); err != nil {
			return err
		}
		return tx.Commit()
	}()
	if err == nil {
		s.head, s.audited = head, false
	} else {
		// A commit that failed can leave its connection within the transaction,
		// and every later one would fail on it: drop idle connections.
		s.db.SetMaxIdleConns(0)
		s.db.SetMaxIdleConns(maxConns)
	}
	for i, w := range batch {
		if err != nil {
			w.result <- fmt.Errorf("writing store: %w", err)
			continue
		}
		w.result <- errs[i]
	}
}

// inSavepoint runs do and undoes it if it fails. fatal ends the transaction.
func inSavepoint(tx *sql.Tx, do func(*sql.Tx) error) (failed, fatal error) {
	if _, err := tx.Exec("SAVEPOINT one"); err != nil {
		return nil, err
	}
	if failed = do(tx); failed != nil {
		if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
			return nil, err
		}
	}
	_, fatal = tx.Exec("RELEASE one")
	return failed, fatal
}
