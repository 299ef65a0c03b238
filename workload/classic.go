package workload

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

const (
	classicLayout = "classic"
	// classicIterations stretch a passphrase that somebody made up: OWASP's
	// number for PBKDF2-SHA256. LUKS1 has nothing better.
	classicIterations = 600_000
)

// ClassicWarning is what whoever asks for a classic image should read.
const ClassicWarning = "classic images have the same measurement as every other workload on that firmware, and a disk without integrity: the host can take their keys and change their content. Build without --classic where the host has a current stack"

// ClassicOptions say what BuildClassic makes.
type ClassicOptions struct {
	Environment
	SourceOptions
	MachineOptions // TEE is SNP; there is no Agent
	DiskOptions    // Filesystem is ext4; there is no integrity

	Destination string
	WorkloadID  string       // empty: derived from the destination, with 64 random bits
	Servers     krun.Servers // one URL, and no pins
	// Legacy is where the workload is registered; nil: nowhere, and then
	// RecordPath gets the registration with the passphrase.
	Legacy     LegacyRegistrar
	RecordPath string
	// PublishSource is as in PublishOptions.
	PublishSource bool
	// Profile is the VMM whose measurement is registered: the legacy form has
	// room for one. Empty: measure.Libkrun112, the last that took such firmware.
	Profile measure.Profile
}

// ClassicResult is what BuildClassic made. It holds no secret.
type ClassicResult struct {
	Image        string            `json:"image"`
	Digest       string            `json:"digest"`
	ImageID      string            `json:"image_id"`
	Source       string            `json:"source"`
	SourceDigest string            `json:"source_digest"`
	WorkloadID   string            `json:"workload_id"`
	DiskBytes    int64             `json:"disk_bytes"`
	Profile      measure.Profile   `json:"profile"`
	Measurement  string            `json:"measurement"` // of Profile
	Registered   bool              `json:"registered"`
	Record       string            `json:"record,omitempty"`
	Measurements map[string]string `json:"measurements"` // of every profile
}

// BuildClassic makes an image for the upstream init of libkrunfw before
// version 5: LUKS1, ext4, footer, no initrd of its own, as `buildah mkcw`
// lays it out. It is no safer than that; see ClassicWarning.
func BuildClassic(ctx context.Context, o ClassicOptions) (*ClassicResult, error) {
	c := &classic{ClassicOptions: o}
	defer c.close()
	for _, step := range []func(context.Context) error{
		c.prepare,
		c.openDestination,
		c.preflight,
		c.measure,
		c.openSource,
		c.readSource,
		c.layOut,
		c.seal,
		c.writeLayer,
		c.describe,
		c.register,
		c.publish,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return c.result(), nil
}

// check refuses what BuildClassic could only fail at later.
func (o *ClassicOptions) check() error {
	err := firstError(func() error { return checkNames(o.Source, o.Destination, o.WorkloadID) },
		o.SourceOptions.check, o.MachineOptions.check, o.DiskOptions.check)
	switch {
	case err != nil:
		return err
	case o.TEE != kbs.SNP:
		return hint.Usagef("TEE %q: classic images are for snp", o.TEE)
	case o.Filesystem != "ext4":
		return hint.Usagef("file system %q: the old init mounts ext4", o.Filesystem)
	case len(o.MoreFirmware) > 0:
		return hint.Usagef("%d firmwares: the legacy form of a registration has room for one measurement", 1+len(o.MoreFirmware))
	case len(o.Servers.URLs) != 1:
		return hint.Usagef("%d servers: the old init knows one", len(o.Servers.URLs))
	case o.Legacy == nil && o.RecordPath == "":
		return hint.With(hint.Usagef("a build that is not registered needs a record, or its passphrase is lost"), "add --record FILE")
	case bytes.ContainsAny(o.Passphrase.Reveal(), "\x00\n"):
		return hint.Usagef("passphrase with a line end or NUL: the old init hands it to cryptsetup as a line")
	}
	return nil
}

// classic is one such build under way.
type classic struct {
	ClassicOptions
	draft
	launch map[string]string // measurements, by profile
}

func (c *classic) prepare(context.Context) (err error) {
	c.Environment.setDefaults()
	c.writable = true
	c.DiskOptions.setDefaults()
	c.env = &c.Environment
	at := c.Now()
	c.Now = func() time.Time { return at }
	if c.Profile == "" {
		c.Profile = measure.Libkrun112
	}
	if err := c.check(); err != nil {
		return err
	}
	if c.fw, err = c.loadFirmware(); err != nil {
		return err
	}
	return checkOldInit(c.fw[0].Initrd)
}

func (c *classic) openDestination(ctx context.Context) (err error) {
	c.out, err = c.openTarget(ctx, c.Destination)
	return err
}

func (c *classic) preflight(context.Context) (err error) {
	if c.WorkloadID == "" {
		if c.WorkloadID, err = newWorkloadID(c.out.name, c.Rand); err != nil {
			return err
		}
	}
	if err := checkURL(c.Servers.URLs[0], c.WorkloadID); err != nil {
		return err
	}
	return checkRecordPath(c.RecordPath)
}

func (c *classic) openSource(ctx context.Context) error {
	return c.draft.openSource(ctx, &c.SourceOptions)
}

func (c *classic) readSource(ctx context.Context) (err error) {
	if c.proc, err = classicProcess(c.src.Config.Config, c.Warn); err != nil {
		return fmt.Errorf("reading %s: %w", c.src.Name, err)
	}
	return c.draft.readSource(ctx, &c.SourceOptions)
}

func (c *classic) layOut(context.Context) error { return c.draft.layOut(&c.DiskOptions) }

// seal draws the keys and makes the footer.
func (c *classic) seal(context.Context) error {
	c.sealed = &sealed{classic: true, kdf: luks.FastKDF()}
	s := c.sealed
	id, err := uuid.NewRandomFromReader(c.Rand)
	if err != nil {
		return fmt.Errorf("drawing disk UUID: %w", err)
	}
	if s.geometry, err = luks.V1Geometry(id.String(), c.fs.SizeBytes()); err != nil {
		return fmt.Errorf("laying out disk: %w", err)
	}
	if s.volumeKey, err = luks.NewVolumeKey(c.Rand, s.geometry); err != nil {
		return err
	}
	if c.Passphrase.Len() > 0 {
		s.diskKey = secret.New(bytes.Clone(c.Passphrase.Reveal()))
		if !isRandomKey(s.diskKey.Reveal()) {
			s.kdf.Iterations = classicIterations
		}
	} else if s.diskKey, err = newDiskKey(c.Rand); err != nil {
		return err
	}
	return s.configure(c.WorkloadID, &c.MachineOptions, c.Servers.URLs[0])
}

func (c *classic) writeLayer(ctx context.Context) error {
	return c.draft.writeLayer(ctx, randomness{rand: c.Rand})
}

// measure computes what every VMM would measure: the firmware's own initrd.
func (c *classic) measure(context.Context) error {
	in, err := measure.FromBundle(c.fw[0], nil)
	if err != nil {
		return err
	}
	c.launch = map[string]string{}
	for _, p := range measure.Profiles(c.TEE, c.fw[0].Kind) {
		r, err := measure.Launch(p, in, measure.Shape{CPUs: uint(c.CPUs), MemoryMiB: c.MemoryMiB})
		if err != nil {
			return fmt.Errorf("measuring for %s: %w", p, err)
		}
		c.launch[string(p)] = r.Digest.String()
	}
	if c.measurement() == "" {
		return hint.Usagef("profile %q is none of this firmware's", c.Profile)
	}
	return nil
}

// measurement is the one that is registered.
func (c *classic) measurement() string { return c.launch[string(c.Profile)] }

func (c *classic) describe(context.Context) error {
	l := map[string]string{krun.LabelLayout: classicLayout, krun.LabelWorkloadID: c.WorkloadID, krun.LabelTEE: string(c.TEE)}
	if c.PublishSource {
		l[krun.LabelSource] = c.src.Digest.String()
	}
	return c.draft.describe(l)
}

// register is not taken back when publishing fails: the legacy dialect cannot.
func (c *classic) register(ctx context.Context) error {
	r := LegacyRegistration{
		WorkloadID: c.WorkloadID, LaunchMeasurement: c.measurement(),
		Passphrase: string(c.sealed.diskKey.Reveal()), TEEConfig: legacySNPPolicy,
	}
	if c.RecordPath != "" {
		if err := writeCanonical(c.RecordPath, r); err != nil {
			return fmt.Errorf("writing record: %w", err)
		}
	}
	if c.Legacy == nil {
		return nil
	}
	if err := c.Legacy.RegisterLegacy(ctx, r); err != nil {
		return registerHint(fmt.Errorf("registering workload %s: %w", c.WorkloadID, err))
	}
	return nil
}

func (c *classic) result() *ClassicResult {
	return &ClassicResult{
		Image: c.out.name, Digest: c.image.digest(), ImageID: c.image.id(),
		Source: c.src.Name, SourceDigest: c.src.Digest.String(), WorkloadID: c.WorkloadID, DiskBytes: c.sealed.diskBytes(),
		Profile: c.Profile, Measurement: c.measurement(), Measurements: c.launch,
		Registered: c.Legacy != nil, Record: c.RecordPath,
	}
}
