package store

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// audit is how the audit log is read.
type audit struct{ *core }

// AuditPage is at most limit entries after a sequence number, oldest first: all,
// or those of one tenant since it was made. Their chain is not checked; Audit
// does that.
func (s audit) AuditPage(ctx context.Context, tenant string, after int64, limit int) (kbs.AuditPage, error) {
	from := after
	query, args := "SELECT "+auditColumns+" FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", []any{after, limit + 1}
	if tenant != "" {
		var since int64
		err := s.db.QueryRowContext(ctx, "SELECT audit_after FROM tenants WHERE name = ?", tenant).Scan(&since)
		if errors.Is(err, sql.ErrNoRows) {
			return kbs.AuditPage{Entries: []AuditEntry{}}, nil
		}
		if err != nil {
			return kbs.AuditPage{}, fmt.Errorf("reading tenant %s: %w", tenant, err)
		}
		query = "SELECT " + auditColumns + " FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?"
		from = max(after, since)
		args = []any{tenant, from, limit + 1}
	}
	all, err := list(ctx, s.db, func(r row) (AuditEntry, error) { l, err := scanLink(r); return l.AuditEntry, err }, query, args...)
	if err != nil {
		return kbs.AuditPage{}, fmt.Errorf("reading audit: %w", err)
	}
	page := kbs.AuditPage{Entries: all}
	// After the entries: what is cut meanwhile is told twice rather than not at all.
	base, err := readBase(s.db.QueryRowContext(ctx, selectMeta, auditBaseName))
	if err != nil {
		return kbs.AuditPage{}, err
	}
	if from < base.Sequence {
		page.Archived = &base.At
	}
	if len(all) > limit {
		page.Entries, page.Next = all[:limit], all[limit-1].Sequence
	}
	return page, nil
}

// TenantAuditPage is AuditPage for a tenant: without the numbers of entries,
// which count what all do. cursor is of the page before, or empty.
func (s audit) TenantAuditPage(ctx context.Context, tenant, cursor string, limit int) (kbs.AuditPage, error) {
	if s.sealer == nil || tenant == "" {
		return kbs.AuditPage{}, fmt.Errorf("reading audit of a tenant: %w", ErrLocked)
	}
	after, err := s.openCursor(tenant, cursor)
	if err != nil {
		return kbs.AuditPage{}, err
	}
	page, err := s.AuditPage(ctx, tenant, after, limit)
	if err != nil {
		return kbs.AuditPage{}, err
	}
	if page.Next > 0 {
		number := secret.New(strconv.AppendInt(nil, page.Next, 10))
		sealed, err := s.sealer.Seal(number, cursorLocation(tenant))
		if err != nil {
			return kbs.AuditPage{}, err
		}
		page.Next, page.Cursor = 0, base64.RawURLEncoding.EncodeToString(sealed)
	}
	for i := range page.Entries {
		page.Entries[i].Sequence = 0
	}
	return page, nil
}

// ErrBadCursor reports a cursor that no page of this tenant had, or one of
// before the MasterKey was rotated.
var ErrBadCursor = errors.New("cursor of no page: begin again without one")

func (s audit) openCursor(tenant, cursor string) (after int64, err error) {
	if cursor == "" {
		return 0, nil
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return 0, ErrBadCursor
	}
	number, err := s.sealer.Open(sealed, cursorLocation(tenant))
	if err != nil {
		return 0, ErrBadCursor
	}
	return strconv.ParseInt(string(number.Reveal()), 10, 64)
}

// Audit calls each with every entry after the given sequence number, oldest
// first; those that were archived are not among them. It checks that each links to
// the one before it; a broken link is ErrTampered. That the end was cut off it
// cannot see: compare with AuditHead.
func (s audit) Audit(ctx context.Context, after int64, each func(AuditEntry) error) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // base and entries of one moment
	if err != nil {
		return fmt.Errorf("reading audit: %w", err)
	}
	defer tx.Rollback()
	base, err := readBase(tx.QueryRowContext(ctx, selectMeta, auditBaseName))
	if err != nil {
		return err
	}
	chain := beginning(base)
	if after > base.Sequence {
		chain = auditChain{seq: after - 1}
	}
	rows, err := tx.QueryContext(ctx, "SELECT "+auditColumns+" FROM audit WHERE seq > ? ORDER BY seq", min(chain.seq, after))
	if err != nil {
		return fmt.Errorf("reading audit: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := chain.next(rows)
		if err != nil {
			return err
		}
		if e.Sequence <= after {
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return rows.Err()
}

// AuditHead is the end of the chain as last signed. ErrNotFound if that is
// before the first entry: those written without the MasterKey wait for the next
// write with it.
func (s audit) AuditHead(ctx context.Context) (kbs.AuditHead, error) {
	h, err := readAuditHead(s.db.QueryRowContext(ctx, selectMeta, auditHeadName))
	if err == nil && h.Sequence == 0 {
		return h, fmt.Errorf("signed audit head: %w", ErrNotFound)
	}
	return h, err
}

// AuditKey is the public key that signs audit heads, read with the MasterKey.
// The one in a head proves nothing by itself: a forger puts in his own.
func (s audit) AuditKey(ctx context.Context, master secret.Bytes) (ed25519.PublicKey, error) {
	sealer, err := masterkey.NewSealer(master, s.rand)
	if err != nil {
		return nil, err
	}
	seed, err := sealedValues{db: s.db, sealer: sealer}.read(ctx, auditKeyName)
	if err != nil {
		return nil, err
	}
	k, err := asAuditKey(seed)
	if err != nil {
		return nil, err
	}
	return k.Public().(ed25519.PublicKey), nil
}

// Base stands for the entries that were archived. ErrNotFound: none were.
func (s audit) Base(ctx context.Context) (kbs.AuditBase, error) {
	b, err := readBase(s.db.QueryRowContext(ctx, selectMeta, auditBaseName))
	if err == nil && b.Sequence == 0 {
		err = fmt.Errorf("audit base: %w", ErrNotFound)
	}
	return b, err
}
