// Package krun describes what a krun virtual machine is: its measured
// identity, the configuration libkrun reads, the footer of its disk.
package krun

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// IdentityPath is where the identity segment of the initrd puts the identity.
const IdentityPath = "/etc/ccrun/identity.json"

// MaxIdentityBytes bounds the canonical identity JSON.
const MaxIdentityBytes = 64 << 10

// IdentityVersion is what `ccrun build` writes and the agent takes.
//
// Version 1 had SHA-384 of the process configuration in ProcessDigest, against
// which anyone could try guesses of a short secret in it, and neither Scratch nor
// Disk.ImageBytes: all its guests wrote to the image's disk, under one key. It is
// still decoded, to inspect and rotate such images, which bring an agent of
// their own.
const IdentityVersion = 2

// Identity is what makes a workload's launch digest its own and no other's.
// It travels as the last segment of the initrd, in RFC 8785 form, and is
// therefore measured. It holds no secret.
type Identity struct {
	Version    int     `json:"version"` // IdentityVersion, or 1
	WorkloadID string  `json:"workload_id"`
	TEE        kbs.TEE `json:"tee"`
	// VMM is VMMQEMU for a TEE's machine of QEMU's; empty: libkrun's, or the
	// simulator's.
	VMM     string       `json:"vmm,omitempty"`
	Servers Servers      `json:"servers"`
	Disk    DiskIdentity `json:"disk"`
	// Scratch is where the workload's writes go.
	Scratch Scratch `json:"scratch,omitzero"`
	// Volumes outlive the container.
	Volumes []Volume `json:"volumes,omitempty"`
	// ProcessDigest is the function ProcessDigest of ProcessPath's bytes on the
	// opened disk.
	ProcessDigest kbs.Digest   `json:"process_digest"`
	Policy        LaunchPolicy `json:"policy"`
	Network       *Network     `json:"network,omitempty"` // nil: the machine's own
	Logs          *SealedLogs  `json:"logs,omitempty"`    // with LogsEncrypted
}

// NetworkMode is how the workload reaches others.
func (id *Identity) NetworkMode() NetworkMode { return id.Network.or(networkOf(id.VMM, id.TEE)) }

// HostData is what an SNP machine of QEMU's is launched with: its reports have it,
// besides the digest of the initrd with the identity in it.
func HostData(identity []byte) [sha256.Size]byte { return sha256.Sum256(identity) }

// ConfigID is MRCONFIGID of a TD, likewise.
func ConfigID(identity []byte) kbs.Digest { return kbs.Sum384(identity) }

// Servers says whom the guest talks to, and by which key it knows them.
type Servers struct {
	URLs []string `json:"urls"` // https://host:port, tried in order
	// PinnedKeys are SHA-256 digests (64 hex digits) of DER SubjectPublicKeyInfo:
	// of the server's own certificate or of a CA above it.
	PinnedKeys []string `json:"pinned_keys"`
	// WaitSeconds is how long the guest waits while none of them can answer;
	// absent: as long as it takes.
	WaitSeconds uint32 `json:"wait_seconds,omitempty"`
}

// Wait is WaitSeconds as a kbs.Client takes it.
func (s Servers) Wait() time.Duration {
	if s.WaitSeconds == 0 {
		return kbs.Forever
	}
	return time.Duration(s.WaitSeconds) * time.Second
}

// DiskIdentity is how to open the disk and how to know the right one.
type DiskIdentity struct {
	luks.Geometry
	// VolumeKeyDigest is luks.VolumeKey.Digest: only the right key satisfies it.
	VolumeKeyDigest kbs.Digest `json:"volume_key_digest"`
	Filesystem      string     `json:"filesystem"` // one of Filesystems
	// ImageBytes is the length of the image, with the footer at its end, which is
	// opened read-only. What a device has behind it is scratch.
	ImageBytes int64 `json:"image_bytes,omitempty"`
}

// LaunchBytes is the length that disk.img has at a launch: the image, and
// behind it the scratch area, if there is to be one.
func (d *DiskIdentity) LaunchBytes(s Scratch) (int64, error) {
	if s.Kind != ScratchDisk {
		return d.ImageBytes, nil
	}
	g, err := s.Geometry(d.Geometry)
	if err != nil {
		return 0, err
	}
	return d.ImageBytes + g.TotalBytes(), nil
}

// LaunchPolicy is what may be decided after the build: by the key server of the
// process (EnvAllow, ArgsAllow: see CheckConfig), by the host of the rest. The
// zero value: nothing.
type LaunchPolicy struct {
	EnvAllow  []string `json:"env_allow,omitempty"` // EnvRules
	ArgsAllow bool     `json:"args_allow,omitempty"`
	Logs      string   `json:"logs"` // where the output goes: one of LogsPolicies
	// Signals are what the host may send beside the image's stop signal and
	// SIGKILL: names as in "SIGHUP", sorted.
	Signals []string `json:"signals,omitempty"`
	// AllowACPI starts the guest although its kernel runs the host's ACPI code;
	// see ACPIWarning.
	AllowACPI bool `json:"allow_acpi,omitempty"`
	// Secrets are what the workload gets of the key server's resources.
	Secrets []SecretRule `json:"secrets,omitempty"`
	// SecretAllow is what of them the host may ask for besides: SecretAllows.
	SecretAllow []string `json:"secret_allow,omitempty"`
	// SecretRefresh has those in files replaced while it runs; nil: they stay.
	SecretRefresh *SecretRefresh `json:"secret_refresh,omitempty"`
	// CDH gives the workload a service in the guest, where it asks for resources,
	// tokens and Evidence as under CoCo.
	CDH bool `json:"cdh,omitempty"`
}

// ACPIWarning says what AllowACPI means, to whoever asks for it or looks at it.
const ACPIWarning = "the host's ACPI tables are code that runs in the guest's kernel, with all of its memory, and no measurement covers them: " +
	"a host that wants the workload's secrets can have them"

// AllowsSignal says whether the host may send the signal of that number beside
// the stop signal and SIGKILL.
func (p *LaunchPolicy) AllowsSignal(number int) bool { return isHostSignal(p.Signals, number) }

// ProcessPath is the OCI image configuration on the encrypted disk: Cmd,
// Entrypoint, Env, WorkingDir, User, StopSignal at top level, as both libkrun
// inits read it.
const ProcessPath = "/.krun_config.json"

// ProcessKeyPurpose names the VolumeKey's subkey for ProcessDigest.
const ProcessKeyPurpose = "ccrun process v1"

// ProcessDigest commits to the process configuration raw. The identity is
// public, and raw may hold short secrets: without the key, which follows from
// the VolumeKey alone, no guess can be tried against the digest. An empty key
// gives the zero digest, which is refused everywhere.
func ProcessDigest(processKey secret.Bytes, raw []byte) kbs.Digest {
	if processKey.Len() == 0 {
		return kbs.Digest{}
	}
	m := hmac.New(sha512.New384, processKey.Reveal())
	m.Write(raw)
	return kbs.Digest(m.Sum(nil))
}

// Process is ProcessPath's content. Members as in the OCI image
// configuration; unknown members are refused.
type Process struct {
	Entrypoint []string `json:"Entrypoint"`
	Cmd        []string `json:"Cmd"`
	Env        []string `json:"Env"`
	WorkingDir string   `json:"WorkingDir"`
	User       string   `json:"User"`
	StopSignal string   `json:"StopSignal"`
	// Volumes are directories to write to, also where the root is read-only.
	Volumes map[string]struct{} `json:"Volumes,omitempty"`
}

// Encode checks id and returns its canonical form.
func (id *Identity) Encode() ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	b, err := kbs.Canonical(id)
	if err == nil && len(b) > MaxIdentityBytes {
		err = fmt.Errorf("identity of %d bytes, at most %d allowed", len(b), MaxIdentityBytes)
	}
	return b, err
}

// DecodeIdentity parses what Encode wrote, refusing everything else.
func DecodeIdentity(b []byte) (*Identity, error) {
	if len(b) > MaxIdentityBytes {
		return nil, fmt.Errorf("identity of %d bytes, at most %d allowed", len(b), MaxIdentityBytes)
	}
	var id Identity
	if err := kbs.UnmarshalCanonical(b, &id); err != nil {
		return nil, fmt.Errorf("decoding identity: %w", err)
	}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	return &id, nil
}

// Validate refuses an identity that leaves anything open.
func (id *Identity) Validate() error {
	switch {
	case id.Version != 1 && id.Version != IdentityVersion:
		return fmt.Errorf("identity version %d, expected %d", id.Version, IdentityVersion)
	case !kbs.ValidWorkloadID(id.WorkloadID):
		return fmt.Errorf("workload id %q: expected up to 128 letters, digits, '.', '_', '-'", id.WorkloadID)
	case !id.TEE.Valid():
		return fmt.Errorf("TEE %q, expected snp, tdx or sample", id.TEE)
	case id.Disk.VolumeKeyDigest.IsZero():
		return errors.New("identity without volume key digest")
	case id.ProcessDigest.IsZero():
		return errors.New("identity without process digest")
	case !slices.Contains(Filesystems(), id.Disk.Filesystem):
		return fmt.Errorf("file system %q, expected one of %v", id.Disk.Filesystem, Filesystems())
	case slices.ContainsFunc(id.Policy.Secrets, func(r SecretRule) bool { return r.Path == ProcessPath }):
		return fmt.Errorf("a secret at %s, where the process configuration is", ProcessPath)
	case len(id.Policy.SecretAllow) > 0 && id.Scratch.Kind != ScratchDisk:
		return errors.New("secrets that the host may ask for, without scratch on disk, behind which it asks")
	case id.Policy.CDH && id.NetworkMode() == NetworkNone:
		return errors.New("a service that asks the key server, in a guest without a network")
	case id.VMM != "" && id.VMM != VMMQEMU:
		return fmt.Errorf("VMM %.40q, expected %s or none", id.VMM, VMMQEMU)
	case id.Policy.AllowACPI && id.TEE != kbs.Sample && id.VMM == "":
		return fmt.Errorf("the host's ACPI code allowed on a machine for TEE %s, which has no ACPI", id.TEE)
	}
	if err := id.Logs.validate(id.Policy.Logs, id.Version); err != nil {
		return err
	}
	if err := checkHostSignals(id.Policy.Signals); err != nil {
		return err
	}
	if err := id.Disk.Geometry.Validate(); err != nil {
		return fmt.Errorf("disk in identity: %w", err)
	}
	if err := id.validateScratch(); err != nil {
		return err
	}
	if err := ValidateVolumes(id.Volumes); err != nil {
		return err
	}
	if err := ValidateSecrets(id.Policy.Secrets, id.Policy.EnvAllow, id.Volumes); err != nil {
		return err
	}
	if err := CheckSecretAllow(id.Policy.SecretAllow); err != nil {
		return err
	}
	if err := id.Policy.SecretRefresh.Validate(id.Policy.Secrets, id.NetworkMode()); err != nil {
		return err
	}
	if err := id.Network.ValidateOn(id.VMM, id.TEE); err != nil {
		return err
	}
	return id.Servers.validate()
}

func (id *Identity) validateScratch() error {
	d := &id.Disk
	if id.Version == 1 {
		if len(id.Volumes) != 0 || d.ImageBytes != 0 || id.Scratch != (Scratch{}) || d.Filesystem == "btrfs" {
			return errors.New("identity of version 1 with scratch, or what came with it")
		}
		return nil
	}
	if n, least := d.ImageBytes, d.TotalBytes(); n <= least || n > least+MaxFooterBytes+2*FooterAlign || n%FooterAlign != 0 {
		return fmt.Errorf("image of %d bytes, expected a multiple of %d with room for %d and a footer", n, FooterAlign, least)
	}
	return id.Scratch.Validate(d.Filesystem)
}

func (s Servers) validate() error {
	if len(s.URLs) == 0 || len(s.PinnedKeys) == 0 {
		return errors.New("identity without server URL or pinned server key")
	}
	for _, raw := range s.URLs {
		if err := kbs.CheckServerURL(raw); err != nil {
			return err
		}
	}
	for _, k := range s.PinnedKeys {
		if b, err := hex.DecodeString(k); err != nil || len(b) != 32 {
			return fmt.Errorf("pinned key %q: expected the SHA-256 of a public key, 64 hex digits", k)
		}
	}
	return nil
}
