package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/secret"
)

// The values in table meta, by name.
const (
	checkName         = "master key check"
	auditKeyName      = "audit signing key"  // Ed25519 seed
	signingKeyName    = "result signing key" // PKCS #8
	sessionSecretName = "session secret"
	renewalSecretName = "renewal secret"
	auditHeadName     = "audit head"       // JSON of kbs.AuditHead
	auditBaseName     = "audit base"       // JSON of kbs.AuditBase: what archives hold
	checkpointName    = "audit checkpoint" // of the tree, as signed last
	witnessedName     = "audit witnessed"  // the checkpoint that witnesses had last
	configuredName    = "in force"         // JSON of Configured
	probeName         = "write probe"
)

// sealedMeta are the values that are sealed, plainMeta those that are not. A
// name in neither list stops a change of MasterKey: a value that is not sealed
// anew would be lost.
var (
	sealedMeta = []string{checkName, auditKeyName, signingKeyName, sessionSecretName, renewalSecretName}
	plainMeta  = []string{auditHeadName, auditBaseName, checkpointName, witnessedName, configuredName, probeName}
)

const selectMeta = "SELECT value FROM meta WHERE name = ?"

func readMeta(r row) (value []byte, err error) { return value, r.Scan(&value) }

// sealedValues are the secrets in table meta.
type sealedValues struct {
	db     *database.DB
	writer *database.Writer
	sealer *masterkey.Sealer // nil without the MasterKey
}

// readOrMake is the value under name, which is made if there is none. Several
// callers who make it at once all get the same.
func (v sealedValues) readOrMake(ctx context.Context, name string, fresh func() (secret.Bytes, error)) (secret.Bytes, error) {
	if v.sealer == nil {
		return secret.Bytes{}, fmt.Errorf("reading %s: %w", name, ErrLocked)
	}
	b, err := v.read(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return b, err
	}
	made, err := fresh()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("making %s: %w", name, err)
	}
	defer made.Wipe()
	err = v.writer.Write(ctx, database.Guests, func(tx *sql.Tx) error {
		sealed, err := v.sealer.Seal(made, valueLocation(name))
		if err != nil {
			return err
		}
		_, err = tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO NOTHING", name, sealed)
		return err
	})
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("making %s: %w", name, err)
	}
	return v.read(ctx, name)
}

func (v sealedValues) read(ctx context.Context, name string) (secret.Bytes, error) {
	sealed, err := readMeta(v.db.QueryRowContext(ctx, selectMeta, name))
	if errors.Is(err, sql.ErrNoRows) {
		return secret.Bytes{}, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading %s: %w", name, err)
	}
	b, err := v.sealer.Open(sealed, valueLocation(name))
	if err != nil && v.writer != nil {
		b, err = v.reopen(ctx, name)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening %s: %w", name, errors.Join(ErrTampered, err))
	}
	return b, nil
}

// reopen is for a value that another process has just put under another
// MasterKey: every transaction begins with following that.
func (v sealedValues) reopen(ctx context.Context, name string) (b secret.Bytes, err error) {
	err = v.writer.Write(ctx, database.Guests, func(tx *sql.Tx) error {
		sealed, err := readMeta(tx.QueryRow(selectMeta, name))
		if err != nil {
			return err
		}
		b, err = v.sealer.Open(sealed, valueLocation(name))
		return err
	})
	return b, err
}
