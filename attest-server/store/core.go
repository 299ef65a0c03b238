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
	db            *database.DB
	writer        *database.Writer
	sealer        *masterkey.Sealer // nil without the MasterKey
	values        sealedValues
	log           *auditLog
	registrations registrations
	clock         func() time.Time
	rand          io.Reader
}

// write runs do in a transaction and returns when it is on disk.
func (c *core) write(ctx context.Context, do func(*sql.Tx) error) error {
	return c.writer.Write(ctx, do)
}
