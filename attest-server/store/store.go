// Package store keeps what attest-server must not lose: registrations, their
// sealed secrets, tokens, session records and the audit log. In SQLite,
// for one server, or in PostgreSQL, for several.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/secret"
)

// Options configures Open. Rand and Clock are needed; a MasterKey left out
// opens the store without its secrets, which is enough for tokens.
type Options struct {
	MasterKey secret.Bytes
	Rand      io.Reader
	Clock     func() time.Time
	// ReloadMasterKeys finds the MasterKeys there are now, in case another
	// process has changed the store's while it was open; nil: writes then fail.
	ReloadMasterKeys func() ([]secret.Bytes, error)
	// SessionRecords is how many session records are kept of authentic
	// Evidence, and again of the rest; the oldest go first. Zero: 10000.
	SessionRecords int
}

// DB is a store in a database: its rooms, which share a core.
type DB struct {
	*core
	master *masterKeyFollower

	workloads
	boots
	releases
	confirmations
	rotations
	resources
	configs
	guestReports
	volumes
	approvals
	tenants
	tokens
	sessionRecords
	machines
	denials
	limits
	sharedSessions
	audit
	checkpoints
	configurations
	*readiness

	owners, auditors *DB
}

// Create makes a new store in one file at path, which must not exist, and
// opens it.
func Create(ctx context.Context, path string, o Options) (*DB, error) {
	s, err := createIn(ctx, o, func() (*database.DB, error) { return database.CreateSQLite(ctx, path, schema) })
	if err != nil {
		return nil, fmt.Errorf("creating store: %w", err)
	}
	return s, nil
}

// CreatePostgres makes a new store in a PostgreSQL database that holds none,
// and opens it.
func CreatePostgres(ctx context.Context, p database.Postgres, o Options) (*DB, error) {
	s, err := createIn(ctx, o, func() (*database.DB, error) { return database.CreatePostgres(ctx, p, schema) })
	if err != nil {
		return nil, fmt.Errorf("creating store: %w", database.HoldsOne(err))
	}
	return s, nil
}

// Open opens the store at path, migrates it if it is older and checks the
// master key against it.
func Open(ctx context.Context, path string, o Options) (*DB, error) {
	s, err := openIn(ctx, o, func() (*database.DB, error) { return database.OpenSQLite(ctx, path, schema) }, (*DB).checkMasterKey)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", path, err)
	}
	return s, nil
}

// OpenPostgres opens the store in a PostgreSQL database, migrates it if it is
// older and checks the master key against it. Several servers may have it open
// at once.
func OpenPostgres(ctx context.Context, p database.Postgres, o Options) (*DB, error) {
	s, err := openIn(ctx, o, func() (*database.DB, error) { return database.OpenPostgres(ctx, p, schema) }, (*DB).checkMasterKey)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	return s, nil
}

func createIn(ctx context.Context, o Options, connect func() (*database.DB, error)) (*DB, error) {
	if o.MasterKey.Len() == 0 {
		return nil, ErrLocked
	}
	return openIn(ctx, o, connect, (*DB).writeCheck)
}

// openIn runs check before anything else is done with the store.
func openIn(ctx context.Context, o Options, connect func() (*database.DB, error), check func(*DB, context.Context) error) (*DB, error) {
	if o.Rand == nil || o.Clock == nil {
		return nil, errors.New("no source of randomness or no clock")
	}
	var sealer *masterkey.Sealer
	if o.MasterKey.Len() != 0 {
		var err error
		if sealer, err = masterkey.NewSealer(o.MasterKey, o.Rand); err != nil {
			return nil, err
		}
	}
	db, err := connect()
	if err != nil {
		return nil, err
	}
	s, err := assemble(db, sealer, o)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err = check(s, ctx); err == nil {
		err = s.log.head.open(ctx, s.values, o.Rand, s.master.log, s.master.sealCheck)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// How many connections to the database are whose.
const (
	writerConns  = 1
	ownerConns   = 3
	auditorConns = 2
)

func assemble(db *database.DB, sealer *masterkey.Sealer, o Options) (*DB, error) {
	writing, err1 := db.Reserve(writerConns)
	owners, err2 := db.Reserve(ownerConns)
	auditors, err3 := db.Reserve(auditorConns)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	master := &masterKeyFollower{sealer: sealer, reload: o.ReloadMasterKeys, rand: o.Rand}
	log := &auditLog{now: o.Clock, head: headSigner{now: o.Clock}}
	begin := func(tx *sql.Tx) error {
		log.head.reset()
		if err := master.follow(tx); err != nil {
			return err
		}
		if err := log.head.rename(master.log); err != nil {
			return err
		}
		return log.tellRefusals(tx)
	}
	w := database.NewWriter(writing, begin, log.head.sign)
	c := &core{
		db: db, writer: w, queue: database.Guests, sealer: sealer, values: sealedValues{db, w, sealer},
		log: log, registrations: new(registrations), clock: o.Clock, rand: o.Rand,
	}
	d := rooms(c, o)
	d.owners, d.auditors = rooms(c.over(owners, database.Owners), o), rooms(c.over(auditors, database.Owners), o)
	d.readiness.answers = d.Check
	for _, x := range []*DB{d, d.owners, d.auditors} {
		x.master, x.readiness = master, d.readiness
	}
	return d, nil
}

// rooms are all that stand on c.
func rooms(c *core, o Options) *DB {
	return &DB{
		core:      c,
		workloads: workloads{c}, boots: boots{c}, releases: releases{c}, confirmations: confirmations{c, maxConfirmations}, rotations: rotations{c}, resources: resources{c}, volumes: volumes{c}, configs: configs{c}, guestReports: guestReports{c}, approvals: approvals{c},
		tenants: tenants{c}, tokens: tokens{c}, audit: audit{c}, checkpoints: checkpoints{c}, configurations: configurations{c}, readiness: &readiness{core: c},
		machines:       machines{c},
		sessionRecords: sessionRecords{core: c, kept: cmp.Or(max(o.SessionRecords, 0), 10000)}, sharedSessions: sharedSessions{c}, denials: denials{c}, limits: limits{c},
	}
}

// Owners is the store for owners: nothing of theirs waits for guests, and no
// guest for them, but for a fair share of what is written. It is open as long
// as s, and Ready when s is.
func (s *DB) Owners() *DB { return s.owners }

// Auditors is Owners for those who read what happened.
func (s *DB) Auditors() *DB { return s.auditors }

// Close waits for pending writes and closes the database.
func (s *DB) Close() error {
	s.writer.Close()
	return s.db.Close()
}

// writeCheck readies a new store: the check value, which names the key that
// signs the audit log, that key, and its signature that the log is empty.
func (s *DB) writeCheck(ctx context.Context) error {
	seed, err := drawSeed(s.rand)
	if err != nil {
		return fmt.Errorf("making audit signing key: %w", err)
	}
	sealedSeed, err := s.sealer.Seal(seed, valueLocation(auditKeyName))
	if err != nil {
		return err
	}
	k, err := asAuditKey(seed)
	if err != nil {
		return err
	}
	s.master.log = nameLog(logIdentity{}, k)
	check, err := s.master.sealCheck(s.master.log)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?), (?, ?)", checkName, check, auditKeyName, sealedSeed); err != nil {
			return err
		}
		_, err := s.log.head.signHead(tx, k, kbs.AuditHead{Hash: noHash})
		return err
	})
}

func (s *DB) checkMasterKey(ctx context.Context) error { return s.master.start(ctx, s.db) }

// Shared says whether several servers may have the store open at once.
func (s *DB) Shared() bool { return s.db.Shared() }

// Warnings are what the database's operator should change.
func (s *DB) Warnings(ctx context.Context) ([]string, error) { return s.db.Warnings(ctx, s.clock()) }

// Check says whether the store answers and is for this process to write.
func (s *DB) Check(ctx context.Context) error {
	check, err := readMeta(s.db.QueryRowContext(ctx, selectMeta, checkName))
	if err != nil || s.master.follows(check) {
		return err
	}
	// Somebody else changed the MasterKey: every write would follow, or refuse.
	return s.write(ctx, func(*sql.Tx) error { return nil })
}
