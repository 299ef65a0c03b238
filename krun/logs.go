package krun

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/sealedlog"
	"github.com/ccrun/ccrun/luks"
)

// LaunchPolicy.Logs: where what the workload prints goes.
const (
	LogsHost = "host" // to the host, as it is
	LogsNone = "none"
	// LogsEncrypted is to the host, for the recipients in SealedLogs to read.
	LogsEncrypted = "encrypted"
)

// LogsPolicies lists them.
func LogsPolicies() []string { return []string{LogsHost, LogsEncrypted, LogsNone} }

// SealedLogs says who can read the log of a workload, and how to know that its
// guests wrote it.
type SealedLogs struct {
	Recipients []string `json:"recipients"` // of age: see sealedlog.ParseRecipients
	// SigningKey is the Ed25519 public key of the pair that follows from the
	// VolumeKey, in hex: sealedlog.SigningKey of its subkey.
	SigningKey string `json:"signing_key"`
}

// CheckLogs refuses a choice of logs that no identity could have.
func CheckLogs(policy string, recipients []string) error {
	switch {
	case !slices.Contains(LogsPolicies(), policy):
		return fmt.Errorf("logs policy %q, expected one of %v", policy, LogsPolicies())
	case policy == LogsEncrypted && len(recipients) == 0:
		return hint.With(errors.New("encrypted logs that nobody can read"), "make a key pair with `age-keygen -pq -o log.key`, and add --log-recipient with its public key")
	case policy == LogsEncrypted:
		_, err := sealedlog.ParseRecipients(recipients)
		return err
	case len(recipients) > 0:
		return hint.With(fmt.Errorf("log recipients with the logs policy %q", policy), "add --logs encrypted")
	}
	return nil
}

// SealLogs names the recipients of the log of a workload whose disk has that
// key; nil without any.
func SealLogs(recipients []string, key *luks.VolumeKey) (*SealedLogs, error) {
	if len(recipients) == 0 {
		return nil, nil
	}
	seed := key.Subkey(sealedlog.SigningPurpose)
	defer seed.Wipe()
	pair, err := sealedlog.SigningKey(seed)
	if err != nil {
		return nil, err
	}
	return &SealedLogs{Recipients: recipients, SigningKey: hex.EncodeToString(pair.Public().(ed25519.PublicKey))}, nil
}

// validate refuses an encrypted log that nobody can read or prove, and
// recipients of one that is not encrypted. l may be nil.
func (l *SealedLogs) validate(policy string, version int) error {
	if l == nil {
		return CheckLogs(policy, nil)
	}
	if version == 1 || len(l.Recipients) == 0 {
		return fmt.Errorf("logs for %d recipients in an identity of version %d", len(l.Recipients), version)
	}
	if _, err := l.Signer(); err != nil {
		return err
	}
	return CheckLogs(policy, l.Recipients)
}

// Signer is SigningKey.
func (l *SealedLogs) Signer() (ed25519.PublicKey, error) {
	if l == nil {
		return nil, errors.New("logs that are not encrypted")
	}
	b, err := hex.DecodeString(l.SigningKey)
	if err != nil || len(b) != ed25519.PublicKeySize || hex.EncodeToString(b) != l.SigningKey {
		return nil, fmt.Errorf("log signing key %.70q, expected %d hex digits", l.SigningKey, 2*ed25519.PublicKeySize)
	}
	return b, nil
}
