package workload

import (
	"cmp"
	"slices"
	"strings"

	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/destination"
	"github.com/ccrun/ccrun/workload/referrers"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/source"
)

// MemoryTargetBytes is what a program that builds should tell Go's runtime,
// with debug.SetMemoryLimit: a tree of a million files takes two thirds of it,
// and a collector that lets the heap double would need more than 512 MiB.
const MemoryTargetBytes = 352 << 20

// Options say what Build makes. Source, Destination, TEE, Servers, Agent and
// Firmware are required; so is one of Registrar and RecordPath.
type Options struct {
	Environment // Now is nil in a Reproducible build: when the source was made
	SourceOptions
	MachineOptions
	DiskOptions
	PublishOptions

	WorkloadID string // empty: derived from the destination, with 64 random bits
	// IDPrefix begins a derived WorkloadID: "acme." for a tenant's.
	IDPrefix string
	Servers  krun.Servers
	Policy   krun.LaunchPolicy
	// LogRecipients read what the workload prints, with Policy.Logs "encrypted":
	// public keys of age.
	LogRecipients []string
	Network       *krun.Network // nil: the machine's own, without names
	// Reproducible makes the same image of the same inputs; see
	// docs/image-format.md for what that tells others.
	Reproducible bool
}

// SourceOptions say which image goes in, and how it is read.
type SourceOptions struct {
	Source string // containers/image name, or a short one
	// SourcePassphrase opens the disk of a Source that is a workload image
	// itself: then that disk's content is built. Empty: it is not one.
	SourcePassphrase secret.Bytes
	// DecryptionKeys open the layers of a Source that is encrypted; nil: none.
	DecryptionKeys *source.DecryptionKeys
	// LayerCache keeps layers for the next build; nil: all are read anew.
	LayerCache *source.LayerCache
	Limits     rootfs.Limits // what a source may cost

	// Lint reviews the source: LintOff, LintWarn or LintError. AllowedBases,
	// if any, are names of images on one of which it must be built.
	Lint         string
	AllowedBases []string
}

// How strict a build is about its source.
const (
	LintOff   = "" // Options.Lint's zero value; the CLI's default is warn
	LintWarn  = "warn"
	LintError = "error"
)

// MachineOptions say what the workload runs on: all of it is measured.
type MachineOptions struct {
	TEE       kbs.TEE
	CPUs      uint8 // 1 to 8
	MemoryMiB uint
	Firmware  string // libkrunfw library, or directory with firmware.json
	// MoreFirmware may be what boots the guest as well: what it measures is
	// registered beside what Firmware does.
	MoreFirmware []string
	Agent        []byte // ccrun-init, a static ELF
	// VMM is krun.VMMQEMU for a machine of QEMU's, with Firmware of kind ovmf; empty:
	// libkrun's, or the simulator's.
	VMM string
	// RTMR0 is where the first register of a TD comes from.
	RTMR0 measure.RTMR0
	// AllowACPI lets the host's ACPI code run in the guest's kernel, where the
	// firmware's command line does not stop it.
	AllowACPI bool
}

// DiskOptions say what the disk is like.
type DiskOptions struct {
	Filesystem string // "btrfs" (default), "erofs" or "ext4"; an image is never written to
	// Scratch is where the workload's writes go. Its zero value is an area of
	// DefaultScratchBytes with BTRFS and integrity, else the guest's memory.
	Scratch krun.Scratch
	// Volumes outlive the containers of the image, in a file of the host's.
	Volumes   []krun.Volume
	SizeBytes int64 // of an ext4 file system; 0: as small as the content allows
	// FreeBytes is the room to write that the content gets without SizeBytes.
	// 0: 1 % of it and at least 4 MiB; all of it is ciphertext that is
	// stored, pushed and pulled.
	FreeBytes   int64
	NoIntegrity bool // for guest kernels without dm-integrity
	// Cipher is one of luks.Ciphers; empty: the first. It is the image's and the
	// scratch area's. AEGIS128 needs a guest kernel that has it.
	Cipher string
	// Passphrase opens the disk. Empty: 256 random bits, as 64 hex digits.
	Passphrase secret.Bytes
	writable   bool // a classic image, whose guests write to its disk
}

// DefaultScratchBytes cost a host what is written of them.
const DefaultScratchBytes = 8 << 30

// PublishOptions say where the image goes and who learns of it.
type PublishOptions struct {
	Destination string // containers/image name, or one in local storage
	// Registrar is where the workload is registered; nil: nowhere, and then
	// RecordPath gets the DiskKey.
	Registrar Registrar
	// RecordPath is written with mode 0600 and must not exist.
	RecordPath string
	// Release limits how often the DiskKey is released; nil: not at all.
	Release *kbs.ReleaseLimits
	// Replace makes this the next version of a workload that is registered; nil:
	// its id must be free.
	Replace *Replacement
	// Rules are registered with the measurement, which is all that they lack.
	// Checked by whoever read them, and by the server.
	Rules kbs.ReferenceValues
	// PublishSource has label, provenance and SBOM name the source image by its
	// manifest's digest. Whoever knows all of that image but a short secret in
	// its configuration can then find the secret by trying.
	PublishSource bool
	// Attach lists the documents (Attach...) that become OCI referrers of the
	// image, where the destination can hold them. Sign, if not nil, signs the
	// image and its provenance.
	Attach  []string
	Sign    *referrers.SigningKey
	Version string // of ccrun, for the provenance
}

// What Options.Attach may name.
const (
	AttachRecord     = "record"
	AttachProvenance = "provenance"
	// AttachSBOM lists the packages on the encrypted disk, for all to read.
	AttachSBOM = "sbom"
)

// Result is what Build made. It holds no secret.
type Result struct {
	Image        string           `json:"image"`  // destination, with transport
	Digest       string           `json:"digest"` // of the manifest
	ImageID      string           `json:"image_id"`
	Source       string           `json:"source"`
	SourceDigest string           `json:"source_digest"`
	DiskBytes    int64            `json:"disk_bytes"`
	Registered   bool             `json:"registered"`
	Record       string           `json:"record,omitempty"`
	Registration kbs.Registration `json:"registration"`
	Replaced     *Replaced        `json:"replaced,omitempty"`
}

func (o *Options) setDefaults() {
	o.Environment.setDefaults()
	o.DiskOptions.setDefaults()
	if o.Policy.Logs == "" {
		o.Policy.Logs = krun.LogsHost
	}
	o.Policy.AllowACPI = o.AllowACPI
}

func (o *DiskOptions) setDefaults() {
	o.Cipher = cmp.Or(o.Cipher, luks.AESXTS)
	switch {
	case o.Filesystem == "" && o.writable:
		o.Filesystem = "ext4"
	case o.Filesystem == "":
		o.Filesystem = "btrfs"
	}
	if o.Scratch == (krun.Scratch{}) && !o.writable {
		o.Scratch.Kind = krun.ScratchMemory
		if o.Filesystem == "btrfs" && !o.NoIntegrity {
			o.Scratch = krun.Scratch{Kind: krun.ScratchDisk, Bytes: DefaultScratchBytes, Damaged: krun.DamagedReplace}
		}
	}
}

// check refuses what Build could only fail at later.
func (o *Options) check() error {
	err := firstError(func() error { return checkNames(o.Source, o.Destination, o.WorkloadID) },
		o.SourceOptions.check, o.MachineOptions.check, o.DiskOptions.check)
	switch {
	case err != nil:
		return err
	case o.Replace != nil && (o.Registrar == nil || o.WorkloadID == ""):
		return hint.Usagef("a build that replaces needs the server and the workload id that is there")
	case o.Registrar == nil && o.RecordPath == "":
		return hint.With(hint.Usagef("a build that is not registered needs a record, or its disk key is lost"), "add --record FILE")
	case o.Firmware == "" || len(o.Agent) == 0:
		return hint.Usagef("firmware and guest agent are needed")
	case len(o.Servers.URLs) == 0:
		return hint.With(hint.Usagef("no server to attest to"), "add --attest-url https://HOST:PORT")
	case len(o.Servers.PinnedKeys) == 0:
		return hint.With(hint.Usagef("no key to know the server by"), "add --attest-ca FILE with the server's or its CA's certificate")
	}
	for _, u := range o.Servers.URLs {
		if err := kbs.CheckServerURL(u); err != nil {
			return hint.Usagef("%w", err)
		}
	}
	if err := o.Network.ValidateOn(o.VMM, o.TEE); err != nil {
		return hint.Usagef("%w", err)
	}
	if err := krun.CheckLogs(o.Policy.Logs, o.LogRecipients); err != nil {
		return hint.Usagef("%w", err)
	}
	if err := checkEnvAllow(o.Policy.EnvAllow); err != nil {
		return err
	}
	if err := krun.ValidateSecrets(o.Policy.Secrets, o.Policy.EnvAllow, o.Volumes); err != nil {
		return hint.Usagef("%w", err)
	}
	if err := o.Policy.SecretRefresh.Validate(o.Policy.Secrets, o.Network.ModeFor(o.TEE)); err != nil {
		return hint.Usagef("%w", err)
	}
	if err := o.checkReproducible(); err != nil {
		return err
	}
	return checkAttach(o.System, o.Destination, o.Attach, o.Sign != nil)
}

// firstError is the first mistake: one at a time is enough to mend.
func firstError(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func checkNames(source, to, workloadID string) error {
	switch {
	case source == "" || to == "":
		return hint.Usagef("source and destination are needed")
	case workloadID != "" && !kbs.ValidWorkloadID(workloadID):
		return hint.Usagef("workload id %q: expected up to 128 letters, digits, '.', '_', '-'", workloadID)
	}
	return destination.Check(to)
}

func (o *SourceOptions) check() error {
	if o.Lint != LintOff && o.Lint != LintWarn && o.Lint != LintError {
		return hint.Usagef("lint %q, expected warn, error or off", o.Lint)
	}
	return nil
}

func (o *MachineOptions) check() error {
	if !o.TEE.Valid() {
		return hint.Usagef("TEE %q, expected snp, tdx or sample", o.TEE)
	}
	t := krun.TEEConfig{WorkloadID: "x", CPUs: o.CPUs, MemoryMiB: o.MemoryMiB, TEE: o.TEE}
	if err := t.Validate(); err != nil {
		return hint.Usagef("%w", err)
	}
	return nil
}

const minPassphraseBytes = 12

func (o *DiskOptions) check() error {
	switch {
	case !slices.Contains(krun.Filesystems(), o.Filesystem):
		return hint.Usagef("file system %q, expected one of %v", o.Filesystem, krun.Filesystems())
	case o.Filesystem != "ext4" && o.SizeBytes != 0:
		return hint.With(hint.Usagef("an %s disk has no free space to give a size to", o.Filesystem), "leave --size out; --scratch SIZE is the room to write in")
	case !slices.Contains(luks.Ciphers(), o.Cipher):
		return hint.Usagef("cipher %q, expected one of %v", o.Cipher, luks.Ciphers())
	case o.Cipher == luks.AEGIS128 && o.NoIntegrity:
		return hint.Usagef("cipher %s without integrity: it encrypts and authenticates in one", o.Cipher)
	case o.FreeBytes < 0 || o.FreeBytes > 0 && (o.SizeBytes > 0 || o.Filesystem != "ext4"):
		return hint.Usagef("%d bytes of free space: only with ext4, and instead of a size", o.FreeBytes)
	case o.SizeBytes < 0 || o.SizeBytes%4096 != 0:
		return hint.Usagef("disk size %d, expected a multiple of 4096", o.SizeBytes)
	case o.Scratch.Kind == krun.ScratchDisk && o.NoIntegrity:
		return hint.With(hint.Usagef("scratch on disk needs a guest kernel with dm-integrity"), "add --scratch 0 to write to the guest's memory")
	case len(o.Volumes) > 0 && (o.NoIntegrity || o.writable):
		return hint.Usagef("volumes need a guest kernel with dm-integrity, and no classic image")
	case o.Passphrase.Len() > 0 && o.Passphrase.Len() < minPassphraseBytes:
		return hint.Usagef("passphrase of %d bytes, expected at least %d", o.Passphrase.Len(), minPassphraseBytes)
	case o.writable:
		return nil
	}
	if err := o.Scratch.Validate(o.Filesystem); err != nil {
		return hint.Usagef("%w", err)
	}
	if err := krun.ValidateVolumes(o.Volumes); err != nil {
		return hint.Usagef("%w", err)
	}
	return nil
}

// checkReproducible refuses what could not come out the same twice, or not
// safely. The volume key must not follow from something that can be guessed:
// its digest is public, and guesses could be tried against that without the
// keyslot's slow derivation.
func (o *Options) checkReproducible() error {
	switch {
	case !o.Reproducible:
		return nil
	case !isRandomKey(o.Passphrase.Reveal()):
		return hint.With(hint.Usagef("a reproducible build needs a disk key of 256 random bits, as 64 hex digits"),
			"make one with `openssl rand -hex 32 >FILE`, keep it secret, and add --passphrase-file FILE")
	case o.WorkloadID == "":
		return hint.With(hint.Usagef("a reproducible build cannot draw a workload id"), "add --workload-id ID")
	}
	return nil
}

// checkAttach refuses what the destination could not keep.
func checkAttach(sys *types.SystemContext, destination string, attach []string, sign bool) error {
	for _, a := range attach {
		if !slices.Contains([]string{AttachRecord, AttachProvenance, AttachSBOM}, a) {
			return hint.Usagef("attachment %q, expected record, provenance or sbom", a)
		}
	}
	if !sign {
		return nil
	}
	if strings.HasPrefix(destination, "docker://") {
		ref, err := alltransports.ParseImageName(destination)
		if err != nil {
			return hint.Usagef("destination %q: %w", destination, err)
		}
		return registry.CheckSignatures(sys, ref)
	}
	if store, err := referrers.Open(sys, destination); err != nil || store == nil || !slices.Contains(attach, AttachProvenance) {
		return hint.With(hint.Usagef("signing %s: it has no place for a signature", destination), "sign into a registry (docker://), or attach signed provenance to a named layout (oci:DIR:NAME)")
	}
	return nil
}

// checkEnvAllow accepts NAME and NAME=REGEX.
func checkEnvAllow(list []string) error {
	for _, e := range list {
		if _, err := krun.ParseEnvRule(e); err != nil {
			return hint.Usagef("%w", err)
		}
	}
	return nil
}
