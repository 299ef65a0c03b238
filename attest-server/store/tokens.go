package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// Role is what a token may do.
type Role string

// Roles, from most to least: an admin does everything, a publisher registers,
// revokes and reads, an auditor reads.
const (
	Admin     Role = "admin"
	Publisher Role = "publisher"
	Auditor   Role = "auditor"
)

// Valid says whether r is a role. The zero value is not.
func (r Role) Valid() bool { return r == Admin || r == Publisher || r == Auditor }

// ErrBadToken reports a token that is unknown, expired or revoked; which of
// these is not said, because its bearer is nobody we know.
var ErrBadToken = errors.New("token is unknown, expired or revoked")

// Token is what the store holds of a token: not the token.
type Token struct {
	ID        string     `json:"id"`
	Role      Role       `json:"role"`
	Tenant    string     `json:"tenant,omitempty"`    // empty: the operator's
	Principal string     `json:"principal,omitempty"` // whose it is; empty: nobody's but itself
	Name      string     `json:"name,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

const (
	tokenPrefix  = "ccrun" // lets secret scanners find leaked ones
	tokenIDSize  = 6
	tokenKeySize = 32
)

// tokens are what owners log in with.
type tokens struct{ *core }

// CreateToken makes a token, of a tenant's or, if that is empty, the
// operator's: a tenant's reaches only what the tenant owns. Its text,
// ccrun_ID_SECRET, is returned this once; the store keeps a SHA-256 of it,
// which 256 random bits need no salt for. A zero expiry means never.
func (s tokens) CreateToken(ctx context.Context, tenant string, role Role, name string, expires time.Time, actor string) (secret.Bytes, Token, error) {
	return s.CreateTokenFor(ctx, "", tenant, role, name, expires, actor)
}

// CreateTokenFor is CreateToken for a principal, who owns what is made with
// any of his tokens. Principals of different tenants are different ones.
func (s tokens) CreateTokenFor(ctx context.Context, principal, tenant string, role Role, name string, expires time.Time, actor string) (secret.Bytes, Token, error) {
	if !role.Valid() {
		return secret.Bytes{}, Token{}, fmt.Errorf("role %q, expected admin, publisher or auditor", role)
	}
	if principal != "" && !kbs.ValidTenant(principal) {
		return secret.Bytes{}, Token{}, fmt.Errorf("principal %q: expected up to 32 lower-case letters, digits and '-'", principal)
	}
	if len(name) > 200 {
		return secret.Bytes{}, Token{}, fmt.Errorf("token name of %d bytes, at most 200 allowed", len(name))
	}
	random := make([]byte, tokenIDSize+tokenKeySize)
	if _, err := io.ReadFull(s.rand, random); err != nil {
		return secret.Bytes{}, Token{}, fmt.Errorf("making token: %w", err)
	}
	t := Token{ID: hex.EncodeToString(random[:tokenIDSize]), Role: role, Tenant: tenant, Principal: principal, Name: name, CreatedAt: s.clock().UTC()}
	if !expires.IsZero() {
		until := fromMilli(unixMilli(expires))
		t.ExpiresAt = &until
	}
	text := []byte(tokenPrefix + "_" + t.ID + "_" + base64.RawURLEncoding.EncodeToString(random[tokenIDSize:]))
	clear(random)
	err := s.write(ctx, func(tx *sql.Tx) error { return s.insertToken(tx, t, sha256.Sum256(text), actor) })
	if err != nil {
		return secret.Bytes{}, Token{}, err
	}
	return secret.New(text), t, nil
}

func (s tokens) insertToken(tx *sql.Tx, t Token, hash [sha256.Size]byte, actor string) error {
	detail := "role " + string(t.Role)
	if t.Tenant != "" {
		if err := needTenant(tx, t.Tenant); err != nil {
			return err
		}
		detail += ", tenant " + t.Tenant
	}
	if t.Principal != "" {
		detail += ", principal " + t.Principal
	}
	var until *int64
	if t.ExpiresAt != nil {
		ms := unixMilli(*t.ExpiresAt)
		until = &ms
	}
	_, err := tx.Exec("INSERT INTO tokens(id, hash, role, tenant, principal, name, created_at, expires_at) VALUES(?,?,?,?,?,?,?,?)",
		t.ID, hash[:], string(t.Role), t.Tenant, t.Principal, t.Name, unixMilli(t.CreatedAt), until)
	if err != nil {
		return fmt.Errorf("storing token: %w", err)
	}
	return s.log.append(tx, actor, "token.create", t.ID, detail)
}

// Authenticate is the token whose text is given, or ErrBadToken.
func (s tokens) Authenticate(ctx context.Context, text secret.Bytes) (Token, error) {
	parts := strings.SplitN(string(text.Reveal()), "_", 3)
	if len(parts) != 3 || parts[0] != tokenPrefix || len(parts[1]) != 2*tokenIDSize {
		return Token{}, ErrBadToken
	}
	if _, err := hex.DecodeString(parts[1]); err != nil { // not for a database to fail on
		return Token{}, ErrBadToken
	}
	t, hash, err := scanToken(s.db.QueryRowContext(ctx, "SELECT "+tokenColumns+" FROM tokens WHERE id = ?", parts[1]))
	if errors.Is(err, ErrNotFound) {
		return Token{}, ErrBadToken
	}
	if err != nil {
		return Token{}, err
	}
	sum := sha256.Sum256(text.Reveal())
	expired := t.ExpiresAt != nil && !s.clock().Before(*t.ExpiresAt)
	if subtle.ConstantTimeCompare(sum[:], hash) != 1 || expired || t.RevokedAt != nil || !t.Role.Valid() {
		return Token{}, ErrBadToken
	}
	return t, nil
}

const tokenColumns = "id, hash, role, tenant, principal, name, created_at, expires_at, revoked_at"

func scanToken(r row) (t Token, hash []byte, err error) {
	var created int64
	var expires, revoked *int64
	err = r.Scan(&t.ID, &hash, &t.Role, &t.Tenant, &t.Principal, &t.Name, &created, &expires, &revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return t, nil, ErrNotFound
	}
	if err != nil {
		return t, nil, fmt.Errorf("reading token: %w", err)
	}
	t.CreatedAt, t.ExpiresAt, t.RevokedAt = fromMilli(created), fromNullMilli(expires), fromNullMilli(revoked)
	return t, hash, nil
}

// Tokens is every token, oldest first, expired and revoked ones included.
func (s tokens) Tokens(ctx context.Context) ([]Token, error) {
	all, err := list(ctx, s.db, func(r row) (Token, error) { t, _, err := scanToken(r); return t, err },
		"SELECT "+tokenColumns+" FROM tokens ORDER BY created_at, id")
	if err != nil {
		return nil, fmt.Errorf("listing tokens: %w", err)
	}
	return all, nil
}

// RevokeToken ends a token at once. Revoking twice changes nothing.
func (s tokens) RevokeToken(ctx context.Context, id, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		var revoked *int64
		err := tx.QueryRow("SELECT revoked_at FROM tokens WHERE id = ?", id).Scan(&revoked)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("token %s: %w", id, ErrNotFound)
		}
		if err != nil || revoked != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE tokens SET revoked_at = ? WHERE id = ?", unixMilli(s.clock()), id); err != nil {
			return err
		}
		return s.log.append(tx, actor, "token.revoke", id, "")
	})
}
