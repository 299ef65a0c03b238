package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

const incarnationBytes = 16

func (c *core) drawIncarnation() (incarnation, error) {
	random := make([]byte, incarnationBytes)
	if _, err := io.ReadFull(c.rand, random); err != nil {
		return "", fmt.Errorf("drawing an incarnation: %w", err)
	}
	return incarnation(hex.EncodeToString(random)), nil
}

// sealIncarnation is nil for none.
func (c *core) sealIncarnation(n incarnation, name string, canonical []byte) ([]byte, error) {
	if n == "" {
		return nil, nil
	}
	return c.sealer.Seal(secret.New([]byte(n)), incarnationLocation(name, canonical))
}

func (c *core) openIncarnation(sealed []byte, name string, canonical []byte) (incarnation, error) {
	if sealed == nil {
		return "", nil
	}
	raw, err := c.sealer.Open(sealed, incarnationLocation(name, canonical))
	if errors.Is(err, masterkey.ErrSealed) {
		err = fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err != nil {
		return "", fmt.Errorf("opening the incarnation of workload %s: %w", name, err)
	}
	return incarnation(raw.Reveal()), nil
}

// readIncarnation is that of a row, which may have none.
func (c *core) readIncarnation(ctx context.Context, from rowQuerier, name string) (incarnation, error) {
	var sealed, canonical []byte
	err := from.QueryRowContext(ctx, "SELECT incarnation, registration FROM workloads WHERE id = ?", name).Scan(&sealed, &canonical)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("workload %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return "", err
	}
	return c.openIncarnation(sealed, name, canonical)
}

// incarnate is readIncarnation of a version that gets one if it has none, as do
// all others of the workload, and what was kept for it without.
func (c *core) incarnate(ctx context.Context, tx *sql.Tx, name string) (incarnation, error) {
	n, err := c.readIncarnation(ctx, tx, name)
	if err != nil || n != "" {
		return n, err
	}
	if n, err = c.drawIncarnation(); err != nil {
		return "", err
	}
	id := kbs.WorkloadOf(name)
	type version struct {
		row       string
		canonical []byte
	}
	scan := func(r row) (v version, err error) { err = r.Scan(&v.row, &v.canonical); return v, err }
	all, err := list(ctx, tx, scan, "SELECT id, registration FROM workloads WHERE "+versionsOf("?1"), id)
	if err != nil {
		return "", err
	}
	for _, v := range all {
		sealed, err := c.sealIncarnation(n, v.row, v.canonical)
		if err != nil {
			return "", err
		}
		if _, err := tx.Exec("UPDATE workloads SET incarnation = ? WHERE id = ?", sealed, v.row); err != nil {
			return "", err
		}
	}
	return n, c.moveKept(ctx, tx, id, n)
}

// moveKept ties what is kept for a workload of none to its incarnation.
func (c *core) moveKept(ctx context.Context, tx *sql.Tx, id string, to incarnation) error {
	type kept struct {
		key    any
		sealed []byte
	}
	for _, table := range []struct {
		query, update string
		location      func(any, incarnation) []byte
	}{
		{"SELECT version, value FROM configs WHERE workload = ?", "UPDATE configs SET value = ? WHERE workload = ? AND version = ?",
			func(k any, n incarnation) []byte { return configLocation(id, k.(int64), n) }},
		{"SELECT name, sealed FROM volumes WHERE workload = ?", "UPDATE volumes SET sealed = ? WHERE workload = ? AND name = ?",
			func(k any, n incarnation) []byte { return volumeLocation(id, k.(string), n) }},
	} {
		scan := func(r row) (k kept, err error) { err = r.Scan(&k.key, &k.sealed); return k, err }
		all, err := list(ctx, tx, scan, table.query, id)
		if err != nil {
			return err
		}
		for _, k := range all {
			value, err := c.sealer.Open(k.sealed, table.location(k.key, ""))
			if errors.Is(err, masterkey.ErrSealed) {
				err = fmt.Errorf("%w: %w", ErrTampered, err)
			}
			if err != nil {
				return fmt.Errorf("what is kept for workload %s: %w", id, err)
			}
			sealed, err := c.sealer.Seal(value, table.location(k.key, to))
			value.Wipe()
			if err != nil {
				return err
			}
			if _, err := tx.Exec(table.update, sealed, id, k.key); err != nil {
				return err
			}
		}
	}
	return nil
}
