package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// configs are what owners give their workloads' processes beside the image.
type configs struct{ *core }

// ErrBadConfig reports a change that makes no configuration.
var ErrBadConfig = errors.New("configuration is not valid")

// config is one version of a workload's configuration.
type config struct {
	version int64
	raw     secret.Bytes // kbs.WorkloadConfig.Encode
}

// ChangeConfig gives a workload's configuration a new version, unless the change
// changes nothing. ErrNotOwner: the workload is another principal's.
func (s configs) ChangeConfig(ctx context.Context, id string, change kbs.ConfigChange, by Caller) (a kbs.ConfigAnswer, err error) {
	if s.sealer == nil {
		return a, fmt.Errorf("changing configuration: %w", ErrLocked)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		if err := mayConfigure(tx, id, by); err != nil {
			return err
		}
		if err := isTaken(ctx, tx, id, &change.Set); err != nil {
			return err
		}
		n, err := s.incarnate(ctx, tx, id)
		if err != nil {
			return err
		}
		have, err := s.newestConfig(tx, id, n)
		if err != nil {
			return err
		}
		defer have.raw.Wipe()
		next, err := applyChange(have.raw, change)
		if err != nil {
			return err
		}
		defer next.Wipe()
		if have.version > 0 && have.raw.Equal(next) {
			a = kbs.ConfigAnswer{Version: have.version}
			return nil
		}
		a = kbs.ConfigAnswer{Version: have.version + 1, Created: true}
		return s.insertConfig(tx, id, config{a.Version, next}, n, by.Actor)
	})
	if err != nil {
		return kbs.ConfigAnswer{}, fmt.Errorf("changing configuration of workload %s: %w", id, err)
	}
	return a, nil
}

// mayConfigure is nil for the principal who registered the workload. Its versions
// have one configuration: ID@N has none.
func mayConfigure(tx *sql.Tx, id string, by Caller) error {
	if !kbs.ValidWorkloadID(id) {
		return ErrNotFound
	}
	var owner string
	err := tx.QueryRow("SELECT registered_by FROM workloads WHERE id = ?", id).Scan(&owner)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	return by.may(owner)
}

// isTaken refuses what no guest of the workload would ever ask for, if the server
// knows what all of them boot. What of it a guest takes, the guest decides.
func isTaken(ctx context.Context, tx *sql.Tx, id string, set *kbs.WorkloadConfig) error {
	if set.Empty() {
		return nil
	}
	scan := func(r row) (identity []byte, err error) {
		err = r.Scan(&identity)
		return identity, err
	}
	all, err := list(ctx, tx, scan, "SELECT b.identity FROM workloads w LEFT JOIN boots b ON b.workload = w.id WHERE "+versionsOf("?1"), id)
	if err != nil {
		return err
	}
	for _, identity := range all {
		var measured struct {
			Policy struct {
				EnvAllow  []string `json:"env_allow"`
				ArgsAllow bool     `json:"args_allow"`
			} `json:"policy"`
		}
		if identity == nil || json.Unmarshal(identity, &measured) != nil || len(measured.Policy.EnvAllow) > 0 || measured.Policy.ArgsAllow {
			return nil
		}
	}
	return fmt.Errorf("%w: the image takes none from the key server; build it with --env-allow NAME or --args-allow, which is measured", ErrBadConfig)
}

func applyChange(raw secret.Bytes, change kbs.ConfigChange) (secret.Bytes, error) {
	have, err := kbs.DecodeConfig(raw.Reveal())
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	next, err := change.Apply(*have)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrBadConfig, err)
	}
	b, err := next.Encode()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrBadConfig, err)
	}
	return secret.New(b), nil
}

func (s configs) insertConfig(tx *sql.Tx, id string, c config, n incarnation, actor string) error {
	sealed, err := s.sealer.Seal(c.raw, configLocation(id, c.version, n))
	if err != nil {
		return err
	}
	_, err = tx.Exec("INSERT INTO configs(workload, version, value, created_at, created_by) VALUES(?,?,?,?,?)", id, c.version, sealed, unixMilli(s.clock()), actor)
	if err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM configs WHERE workload = ? AND version <= ?", id, c.version-versionsKept); err != nil {
		return err
	}
	return s.log.append(tx, actor, "config.set", id, fmt.Sprintf("version %d", c.version))
}

// newestConfig is version 0, which is empty, of a workload that has none.
func (s configs) newestConfig(tx *sql.Tx, id string, n incarnation) (c config, err error) {
	var sealed []byte
	err = tx.QueryRow("SELECT version, value FROM configs WHERE workload = ? ORDER BY version DESC LIMIT 1", id).Scan(&c.version, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return config{raw: secret.New([]byte("{}"))}, nil
	}
	if err != nil {
		return c, err
	}
	c.raw, err = s.openConfig(id, c.version, n, sealed)
	return c, err
}

func (s configs) openConfig(id string, version int64, n incarnation, sealed []byte) (secret.Bytes, error) {
	raw, err := s.sealer.Open(sealed, configLocation(id, version, n))
	if errors.Is(err, masterkey.ErrSealed) {
		err = ErrTampered
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening configuration of workload %s: %w", id, err)
	}
	return raw, nil
}

// ReleaseConfig audits a release and only then returns the newest configuration,
// encoded; an empty one if there is none. The workload must still be as it was
// appraised.
func (s configs) ReleaseConfig(ctx context.Context, id string, appraised kbs.Digest, session string) (raw secret.Bytes, err error) {
	var refused error
	err = s.write(ctx, func(tx *sql.Tx) error {
		w, err := s.readProven(ctx, tx, id, appraised)
		if err != nil {
			return err
		}
		if refused = machineDenied(tx, session); refused == nil {
			refused = new(counters).allow(w.reg.Release, s.clock(), true) // expiry
		}
		switch {
		case errors.Is(refused, ErrLimit), errors.Is(refused, ErrRevoked):
			return s.log.refuse(tx, refusal{session: session, action: "config.refuse", object: id, detail: refused.Error(), workload: id, why: whyRefused(refused)})
		case refused != nil:
			return refused
		}
		n, err := s.incarnate(context.WithoutCancel(ctx), tx, w.row)
		if err != nil {
			return err
		}
		c, err := s.newestConfig(tx, id, n)
		if err != nil {
			return err
		}
		raw = c.raw
		_, err = tx.Exec("UPDATE configs SET releases = releases + 1, last_release = ? WHERE workload = ? AND version = ?", unixMilli(s.clock()), id, c.version)
		if err != nil {
			return err
		}
		if err := noteGiven(tx, session, kbs.Given{Config: c.version}); err != nil {
			return err
		}
		return s.log.append(tx, "session/"+session, "config.release", id, fmt.Sprintf("version %d", c.version))
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		raw.Wipe()
		return secret.Bytes{}, fmt.Errorf("releasing configuration: %w", err)
	}
	return raw, nil
}

// readProven is readReleasable of a registration that opens its DiskKey. What is
// kept for a workload's id alone must not go to a registration that somebody has
// put under that id in the database: its DiskKey would not open.
func (c *core) readProven(ctx context.Context, tx *sql.Tx, id string, appraised kbs.Digest) (releasable, error) {
	r, err := c.readReleasable(ctx, tx, id, appraised, false)
	if err != nil {
		return r, err
	}
	k, err := releases{c}.open(r, id)
	k.Wipe()
	return r, err
}

// Config is what is known of a workload's configuration but its values.
func (s configs) Config(ctx context.Context, id string) (kbs.ConfigMeta, error) {
	var there bool
	if err := s.db.QueryRowContext(ctx, "SELECT EXISTS(SELECT 1 FROM workloads WHERE id = ?)", id).Scan(&there); err != nil {
		return kbs.ConfigMeta{}, fmt.Errorf("reading workload %s: %w", id, err)
	}
	if !there {
		return kbs.ConfigMeta{}, fmt.Errorf("workload %s: %w", id, ErrNotFound)
	}
	n, err := s.readIncarnation(ctx, s.db, id)
	if err != nil {
		return kbs.ConfigMeta{}, err
	}
	scan := func(r row) (kbs.ConfigVersion, error) { return s.scanConfig(id, n, r) }
	versions, err := list(ctx, s.db, scan, `SELECT version, value, created_at, created_by, releases, last_release FROM configs
		WHERE workload = ? ORDER BY version DESC`, id)
	if err != nil {
		return kbs.ConfigMeta{}, fmt.Errorf("reading configuration of workload %s: %w", id, err)
	}
	return kbs.ConfigMeta{WorkloadID: id, Versions: versions}, nil
}

func (s configs) scanConfig(id string, n incarnation, r row) (v kbs.ConfigVersion, err error) {
	var sealed []byte
	var created int64
	var last *int64
	if err := r.Scan(&v.Version, &sealed, &created, &v.CreatedBy, &v.Releases, &last); err != nil {
		return v, err
	}
	raw, err := s.openConfig(id, v.Version, n, sealed)
	if err != nil {
		return v, err
	}
	defer raw.Wipe()
	c, err := kbs.DecodeConfig(raw.Reveal())
	if err != nil {
		return v, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if v.Env = slices.Sorted(maps.Keys(c.Env)); v.Env == nil {
		v.Env = []string{}
	}
	if c.Args != nil {
		n := len(c.Args)
		v.Args = &n
	}
	v.CreatedAt, v.LastRelease = fromMilli(created), fromNullMilli(last)
	return v, nil
}

// RemoveConfig deletes every version, or is ErrNotFound. ErrNotOwner: the
// workload is another principal's.
func (s configs) RemoveConfig(ctx context.Context, id string, by Caller) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		err := mayConfigure(tx, id, by)
		if err == nil {
			err = changed(tx.Exec("DELETE FROM configs WHERE workload = ?", id))
		}
		if err != nil {
			return fmt.Errorf("configuration of workload %s: %w", id, err)
		}
		return s.log.append(tx, by.Actor, "config.remove", id, "")
	})
}
