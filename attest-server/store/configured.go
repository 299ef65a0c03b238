package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/hint"
)

// ErrPolicyGone says that the server's policy was in force and is no longer
// there, though nobody said that there shall be none.
var ErrPolicyGone = errors.New("the policy in force is gone")

// configuredActor is who changes the configuration: whoever can write the file
// has no name here.
const configuredActor = "server"

// configuredObject is nothing that a tenant could own, whatever its name.
const configuredObject = "/configuration"

// Configured is what a server runs with. The store remembers it, so that a
// server that starts knows whether a policy was in force before.
type Configured struct {
	Configuration string `json:"configuration,omitempty"` // SHA-256 of the file; empty: none
	Policy        string `json:"policy,omitempty"`        // SHA-384 of its RFC 8785 form; empty: none
	// Tenants are those that client certificates mean by their names: each name,
	// '=' and TenantMade, between blanks.
	Tenants  string `json:"tenants,omitempty"`
	NoPolicy bool   `json:"-"` // it was said that there shall be none
	// Advisories is the table of firmware advisories in use: the newest ever.
	Advisories advisory.Mark `json:"advisories,omitzero"`
}

// Follows refuses to go from a policy to none by absence alone, and from a
// table of advisories to an older one.
func (c Configured) Follows(before Configured) error {
	if err := c.Advisories.Follows(before.Advisories); err != nil {
		return err
	}
	if before.Policy == "" || c.Policy != "" || c.NoPolicy {
		return nil
	}
	return hint.With(fmt.Errorf("%w: the configuration has none, expected policy %s or another", ErrPolicyGone, before.Policy),
		"is the configuration whole? To be without a policy from now on, say so: [policy] none = true")
}

func (c Configured) same(d Configured) bool {
	return c.Policy == d.Policy && c.Configuration == d.Configuration && c.Advisories == d.Advisories && c.Tenants == d.Tenants
}

// Change is how the log and the audit log tell of it.
func (c Configured) Change(before Configured) string {
	word := ""
	if c.NoPolicy {
		word = ", as [policy] none = true says"
	}
	tenants := ""
	if c.Tenants != before.Tenants {
		tenants = fmt.Sprintf(", certificates of tenants %q -> %q", before.Tenants, c.Tenants)
	}
	return fmt.Sprintf("configuration %s -> %s, policy %s -> %s%s, advisories %s -> %s%s", orNone(before.Configuration), orNone(c.Configuration),
		orNone(before.Policy), orNone(c.Policy), word, before.Advisories, c.Advisories, tenants)
}

func orNone(digest string) string { return cmp.Or(digest, "none") }

// configurations remembers what servers run with.
type configurations struct{ *core }

// Configured is what was in force last; zero if nothing ever was.
func (s configurations) Configured(ctx context.Context) (Configured, error) {
	return readConfigured(s.db.QueryRowContext(ctx, selectMeta, configuredName))
}

func readConfigured(r row) (c Configured, err error) {
	b, err := readMeta(r)
	if errors.Is(err, sql.ErrNoRows) {
		return c, nil
	}
	if err == nil {
		err = kbs.UnmarshalStrict(b, &c)
	}
	if err != nil {
		return c, fmt.Errorf("reading what was in force: %w", err)
	}
	return c, nil
}

// Configure remembers and audits what is in force from now on, if it differs
// from what was, and returns that. ErrPolicyGone changes nothing.
func (s configurations) Configure(ctx context.Context, now Configured) (before Configured, err error) {
	if before, err = s.Configured(ctx); err != nil || before.same(now) {
		return before, err
	}
	b, err := json.Marshal(now)
	if err != nil {
		return before, err
	}
	return before, s.write(ctx, func(tx *sql.Tx) error {
		if before, err = readConfigured(tx.QueryRow(selectMeta, configuredName)); err != nil {
			return err
		}
		if err := now.Follows(before); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value", configuredName, b)
		if err != nil {
			return err
		}
		return s.log.append(tx, configuredActor, "configuration.change", configuredObject, now.Change(before))
	})
}
