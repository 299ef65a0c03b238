package store

import (
	"context"
	"database/sql"
	"io"
	"time"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store/database"
)

// core is what every room of the store stands on.
type core struct {
	db            *database.DB // for reads
	writer        *database.Writer
	queue         database.Queue    // where its writes wait
	sealer        *masterkey.Sealer // nil without the MasterKey
	values        sealedValues
	log           *auditLog
	registrations *registrations
	clock         func() time.Time
	rand          io.Reader
}

// write runs do in a transaction and returns when it is on disk.
func (c *core) write(ctx context.Context, do func(*sql.Tx) error) error {
	return c.writer.Write(ctx, c.queue, do)
}

// over is c for other users: their reads have connections of their own, and
// their writes wait in a queue of their own.
func (c *core) over(db *database.DB, q database.Queue) *core {
	other := *c
	other.db, other.queue = db, q
	return &other
}
