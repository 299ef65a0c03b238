package store

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

// callTime is how long PostgreSQL may take to answer one statement, waiting
// for another server's write included.
const callTime = 10 * time.Second

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
	p := begin(ctx)
	defer p.end()
	r, err := c.Conn.ExecContext(p.ctx, numbered(query), args)
	return r, unavailable(ctx, err)
}

func (c pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	p := begin(ctx)
	rows, err := c.Conn.QueryContext(p.ctx, numbered(query), args)
	if err != nil {
		p.end()
		return nil, unavailable(ctx, err)
	}
	p.timer.Stop()
	return &pgRows{Rows: rows, patience: p, caller: ctx}, nil
}

// BeginTx begins a transaction that reads what others committed before each
// statement, or for reading alone, one that sees a single moment.
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
	p := begin(ctx)
	defer p.end()
	return c.Conn.Conn().Exec(p.ctx, statement)
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

// pgRows waits callTime for each row.
type pgRows struct {
	driver.Rows
	patience
	caller context.Context
}

func (r *pgRows) Next(dest []driver.Value) error {
	r.timer.Reset(callTime)
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

// patience is a context that ends when PostgreSQL takes too long.
type patience struct {
	ctx    context.Context
	cancel context.CancelFunc
	timer  *time.Timer
}

func begin(ctx context.Context) patience {
	ctx, cancel := context.WithCancel(ctx)
	return patience{ctx, cancel, time.AfterFunc(callTime, cancel)}
}

func (p *patience) end() {
	p.timer.Stop()
	p.cancel()
}

// unavailable marks errors that are the database's and will pass. What the
// caller ended himself is not.
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
