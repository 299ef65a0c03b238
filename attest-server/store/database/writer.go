package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	writerConns = 1
	maxBatch    = 64
	// maxOwners is how many of a batch may be owners'.
	maxOwners = 16
)

// Writer writes to a database. All writes go through one goroutine that
// commits whatever has queued up in one transaction, so that concurrent
// handshakes share the disk's flush. A write that was acknowledged is on disk.
type Writer struct {
	db    *DB
	first func(*sql.Tx) error
	last  func(*sql.Tx) (committed func(), err error)

	mu     sync.RWMutex // guards closed against sends on the queues
	closed bool
	guests chan write
	owners chan write
	done   chan struct{}

	commits atomic.Int64 // transactions that ended
	failed  atomic.Bool  // something in the last of them
}

type write struct {
	do     func(*sql.Tx) error
	result chan error
}

// NewWriter starts a Writer over a connection of db's own. Each transaction begins with first and ends with
// last; committed is called once it is on disk. Only the Writer's goroutine
// calls them. There is one Writer to a DB.
func NewWriter(db *DB, first func(*sql.Tx) error, last func(*sql.Tx) (committed func(), err error)) *Writer {
	w := &Writer{db: db, first: first, last: last, guests: make(chan write, maxBatch), owners: make(chan write, maxOwners), done: make(chan struct{})}
	go w.loop()
	return w
}

// Queue is whose writes wait together. Those of owners never fill a batch while
// guests' wait.
type Queue int

// The queues.
const (
	Guests Queue = iota
	Owners
)

// Last is how many transactions there were, and whether anything in the last
// of them went wrong, be it only that one write was refused.
func (w *Writer) Last() (n int64, failed bool) { return w.commits.Load(), w.failed.Load() }

// Close waits for pending writes.
func (w *Writer) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.guests)
		close(w.owners)
	}
	w.mu.Unlock()
	<-w.done
}

// Write runs do in a transaction and returns when it is on disk. Once it is
// queued, Write waits whatever ctx says, because do uses its caller's
// variables.
func (w *Writer) Write(ctx context.Context, q Queue, do func(*sql.Tx) error) error {
	one := write{do: do, result: make(chan error, 1)}
	writes := w.guests
	if q == Owners {
		writes = w.owners
	}
	w.mu.RLock()
	if w.closed {
		w.mu.RUnlock()
		return errors.New("store is closed")
	}
	select {
	case writes <- one:
		w.mu.RUnlock()
	case <-ctx.Done():
		w.mu.RUnlock()
		return ctx.Err()
	}
	return <-one.result
}

func (w *Writer) loop() {
	defer close(w.done)
	guests, owners := w.guests, w.owners
	for guests != nil || owners != nil {
		batch := make([]write, 0, maxBatch)
		select {
		case one, ok := <-guests:
			if !ok {
				guests = nil
				continue
			}
			batch = append(batch, one)
		case one, ok := <-owners:
			if !ok {
				owners = nil
				continue
			}
			batch = append(batch, one)
		}
		w.commit(fill(batch, guests, owners))
	}
}

// fill adds to batch what has queued up, of owners no more than maxOwners. It
// lets those join who are about to write: a busy server flushes less often
// then, and on an idle one nobody is.
func fill(batch []write, guests, owners <-chan write) []write {
	theirs := 0
	for had := 0; had < len(batch); {
		had = len(batch)
		runtime.Gosched()
		batch = gather(batch, owners, min(maxOwners-theirs, maxBatch-had))
		theirs += len(batch) - had
		batch = gather(batch, guests, maxBatch-len(batch))
	}
	return batch
}

// gather adds at most more of what has queued up to batch.
func gather(batch []write, queue <-chan write, more int) []write {
	for range max(0, more) {
		select {
		case one, ok := <-queue:
			if !ok {
				return batch
			}
			batch = append(batch, one)
		default:
			return batch
		}
	}
	return batch
}

// commit runs every write of the batch in a savepoint of its own, so that one
// refused write does not undo its neighbours.
func (w *Writer) commit(batch []write) {
	errs := make([]error, len(batch))
	committed := func() {}
	err := func() error {
		tx, err := w.db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := w.db.engine.begin(tx, w.db.schema); err != nil {
			return err
		}
		if err := w.first(tx); err != nil {
			return err
		}
		for i, one := range batch {
			if errs[i], err = inSavepoint(tx, one.do); err != nil {
				return err
			}
		}
		if committed, err = w.last(tx); err != nil {
			return err
		}
		return tx.Commit()
	}()
	if err == nil {
		committed()
	} else {
		// A commit that failed can leave its connection within the transaction,
		// and every later one would fail on it: drop idle connections.
		w.db.SetMaxIdleConns(0)
		w.db.SetMaxIdleConns(writerConns)
	}
	w.failed.Store(errors.Join(append(errs, err)...) != nil)
	w.commits.Add(1)
	for i, one := range batch {
		if err != nil {
			one.result <- fmt.Errorf("writing store: %w", err)
			continue
		}
		one.result <- errs[i]
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
