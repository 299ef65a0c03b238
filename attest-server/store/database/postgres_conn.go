package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// statementTimeout is how long PostgreSQL may take to answer one statement,
// waiting for another server's write included.
const statementTimeout = 10 * time.Second

// pgConnector makes connections that understand the store's queries, never
// wait for ever, and say ErrUnavailable when it is the database's fault.
type pgConnector struct{ driver.Connector }

func (c pgConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return pgConn{conn.(*stdlib.Conn)}, nil
}

type pgConn struct{ *stdlib.Conn }

func (c pgConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.Conn.PrepareContext(ctx, numbered(query))
	return s, unavailable(ctx, err)
}

func (c pgConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	t := timed(ctx)
	defer t.end()
	r, err := c.Conn.ExecContext(t.ctx, numbered(query), args)
	return r, unavailable(ctx, err)
}

func (c pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	t := timed(ctx)
	rows, err := c.Conn.QueryContext(t.ctx, numbered(query), args)
	if err != nil {
		t.end()
		return nil, unavailable(ctx, err)
	}
	t.timer.Stop()
	return &pgRows{Rows: rows, timedContext: t, caller: ctx}, nil
}

// BeginTx begins a transaction. Each of its statements sees what was committed
// before it; in one that only reads, all see the same moment.
func (c pgConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	mode := "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
	if o.ReadOnly {
		mode = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
	}
	if o.Isolation != 0 {
		return nil, errors.New("isolation levels are not for callers to choose")
	}
	_, err := c.run(ctx, mode)
	if pgconn.SafeToRetry(err) { // on another connection
		err = errors.Join(driver.ErrBadConn, err)
	}
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return pgTx{c}, nil
}

func (c pgConn) run(ctx context.Context, statement string) (pgconn.CommandTag, error) {
	t := timed(ctx)
	defer t.end()
	return c.Conn.Conn().Exec(t.ctx, statement)
}

type pgTx struct{ conn pgConn }

// Commit fails if PostgreSQL answers that it rolled back instead.
func (t pgTx) Commit() error {
	tag, err := t.conn.run(context.Background(), "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		return fmt.Errorf("committing: PostgreSQL answered %s", tag)
	}
	return unavailable(context.Background(), err)
}

func (t pgTx) Rollback() error {
	_, err := t.conn.run(context.Background(), "ROLLBACK")
	return unavailable(context.Background(), err)
}

// pgRows waits statementTimeout for each row.
type pgRows struct {
	driver.Rows
	timedContext
	caller context.Context
}

func (r *pgRows) Next(dest []driver.Value) error {
	r.timer.Reset(statementTimeout)
	err := r.Rows.Next(dest)
	r.timer.Stop()
	if err == io.EOF {
		return err
	}
	return unavailable(r.caller, err)
}

func (r *pgRows) Close() error {
	defer r.end()
	return r.Rows.Close()
}

// timedContext is a context that ends when PostgreSQL takes too long.
type timedContext struct {
	ctx    context.Context
	cancel context.CancelFunc
	timer  *time.Timer
}

func timed(ctx context.Context) timedContext {
	ctx, cancel := context.WithCancel(ctx)
	return timedContext{ctx, cancel, time.AfterFunc(statementTimeout, cancel)}
}

func (t *timedContext) end() {
	t.timer.Stop()
	t.cancel()
}

// unavailable marks errors that are the database's and will pass. If the
// caller's context has ended, that was the reason, not the database.
func unavailable(caller context.Context, err error) error {
	if err == nil || caller.Err() != nil {
		return err
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && !passing(refused.Code) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// passing says whether a SQLSTATE is one of trouble that ends by itself, or by
// an administrator's hand: connection, resources, operator intervention, a
// standby that takes no writes, a conflict among transactions.
func passing(state string) bool {
	for _, class := range []string{"08", "53", "57", "58", "25006", "25P03", "40"} {
		if strings.HasPrefix(state, class) {
			return true
		}
	}
	return false
}

// numbered turns the store's placeholders, ? and ?3, into $1 and $3. A query
// uses one kind. What stands in quotes stays.
func numbered(query string) string {
	if !strings.Contains(query, "?") {
		return query
	}
	var b strings.Builder
	n, quoted := 0, false
	for i := range len(query) {
		switch c := query[i]; {
		case c == '?' && !quoted:
			b.WriteByte('$')
			if i+1 == len(query) || query[i+1] < '0' || query[i+1] > '9' {
				n++
				b.WriteString(strconv.Itoa(n))
			}
		case c == '\'':
			quoted = !quoted
			fallthrough
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
