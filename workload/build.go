// Package workload turns an OCI image into a confidential workload image and
// registers it: `ccrun build`, `inspect` and `register`.
//
// A build is one pass with everything measured known before it: the layers'
// tar headers give the file system's layout and so its size; size, keys and
// process give the identity; the identity gives the launch digests. Then the
// file system is streamed through encryption into the destination, and only
// after its last byte is the workload registered, and only after that does
// the image get its name. No plaintext touches a disk of ours: what must be
// kept between the two readings of a layer is encrypted under a key that
// never leaves memory, in a file that has no name.
package workload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/referrers"
	"github.com/ccrun/ccrun/workload/sbom"
)

// Build makes the workload image that o describes, registers it, or writes
// its record, and gives it its name. After an error nothing of it is left.
//
// It registers before it publishes, so that a kill at any point leaves at worst
// a registration or record of an image that nobody has, never a name that
// points to an image whose key is lost.
func Build(ctx context.Context, o Options) (*Result, error) {
	b := &build{Options: o}
	defer b.close()
	for _, step := range []func(context.Context) error{
		b.prepare,
		b.openDestination,
		b.preflight,
		b.openSource,
		b.readSource,
		b.layOut,
		b.drawKeys,
		b.seal,
		b.writeLayer,
		b.describe,
		b.register,
		b.publish,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return b.result(), nil
}

// build is one build under way.
type build struct {
	Options
	draft
	sourceTime bool                   // all happens when the source was made
	agent      func() ([]byte, error) // its initrd segment, made meanwhile
	packages   []byte                 // the SBOM, if it is to be attached
	random     randomness
	undo       func() error // takes registration and record back
	replacing  *Replaced    // the version before; nil: there is none
}

// prepare refuses what could only fail later, and reads what the guest boots.
func (b *build) prepare(context.Context) (err error) {
	b.sourceTime = b.Reproducible && b.Now == nil
	b.setDefaults()
	b.env = &b.Environment
	if err := b.check(); err != nil {
		return err
	}
	if b.fw, err = b.loadFirmware(); err != nil {
		return err
	}
	for _, fw := range b.fw {
		if err := checkServerNames(b.Servers.URLs, b.Network, fw.Cmdline); err != nil {
			return err
		}
	}
	b.agent = b.packAgent()
	return nil
}

func (b *build) openDestination(ctx context.Context) (err error) {
	b.out, err = b.openTarget(ctx, b.Destination)
	return err
}

// preflight finds out before the long part whether its result can be kept.
func (b *build) preflight(ctx context.Context) (err error) {
	if b.WorkloadID == "" {
		if b.WorkloadID, err = newWorkloadID(b.out.name, b.Rand); err != nil {
			return err
		}
		b.WorkloadID = b.IDPrefix + b.WorkloadID
	}
	if err := checkRecordPath(b.RecordPath); err != nil {
		return err
	}
	if b.Replace != nil {
		b.replacing, err = b.Replace.find(ctx, b.Registrar, b.WorkloadID)
		return err
	}
	return checkUnregistered(ctx, b.Registrar, b.WorkloadID)
}

// openSource also fixes the moment at which all of the build happens.
func (b *build) openSource(ctx context.Context) error {
	if err := b.draft.openSource(ctx, &b.SourceOptions); err != nil {
		return err
	}
	at := b.Now()
	if b.sourceTime {
		at = time.Unix(0, 0)
		if created := b.src.Config.Created; created != nil {
			at = *created
		}
	}
	b.Now = func() time.Time { return at }
	return nil
}

// readSource finds out what is to run, and in which files.
func (b *build) readSource(ctx context.Context) (err error) {
	c := b.src.Config.Config
	b.proc, err = kbs.Canonical(processOf(c, b.Warn))
	if err == nil {
		err = checkProcess(b.proc)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", b.src.Name, err)
	}
	if err := b.draft.readSource(ctx, &b.SourceOptions); err != nil {
		return err
	}
	if slices.Contains(b.Attach, AttachSBOM) {
		return b.listPackages(ctx)
	}
	return nil
}

func (b *build) listPackages(ctx context.Context) (err error) {
	var warnings []string
	b.src.Keep(true) // contents are read again for the disk
	b.packages, warnings, err = sbom.List(ctx, b.tree, b.TempDir, b.publicSource(), b.Now())
	b.src.Keep(false)
	for _, w := range warnings {
		b.Warn(w)
	}
	return err
}

func (b *build) layOut(context.Context) error {
	if err := placeSecrets(b.tree, &b.Policy, b.Volumes, b.Warn); err != nil {
		return err
	}
	return b.draft.layOut(&b.DiskOptions)
}

// drawKeys draws the disk's keys, or derives them from all that will be on it:
// then the whole plaintext is read once more.
func (b *build) drawKeys(ctx context.Context) (err error) {
	b.random = randomness{rand: b.Rand}
	if b.Reproducible {
		h := sha256.New()
		b.src.Keep(true)
		if err := b.fs.WriteTo(ctx, &meterWriter{ctx, h, b.meter("deriving keys", b.fs.SizeBytes())}); err != nil {
			return err
		}
		b.src.Keep(false)
		if b.random, err = derived(b.Passphrase, b.Cipher, !b.NoIntegrity, [sha256.Size]byte(h.Sum(nil))); err != nil {
			return err
		}
	}
	b.sealed, err = drawKeys(b.random, &b.DiskOptions, b.fs.SizeBytes())
	return err
}

// seal makes identity, footer, launch digests and with them the registration.
func (b *build) seal(context.Context) error {
	agent, err := b.agent()
	if err != nil {
		return err
	}
	id := krun.Identity{WorkloadID: b.WorkloadID, TEE: b.TEE, VMM: b.VMM, Servers: b.Servers, Policy: b.Policy, Network: b.Network}
	if id.Logs, err = krun.SealLogs(b.LogRecipients, b.sealed.volumeKey); err != nil {
		return err
	}
	if err := b.sealed.configure(b.WorkloadID, &b.MachineOptions, b.Servers.URLs[0]); err != nil {
		return err
	}
	if err := b.sealed.identify(id, b.proc, &b.DiskOptions, agent); err != nil {
		return err
	}
	launch, err := b.measurements(b.fw, b.sealed.initrd)
	if err != nil {
		return err
	}
	if b.Rules, err = b.bind(b.Rules, b.fw, b.sealed); err != nil {
		return err
	}
	b.sealed.describe(b.WorkloadID, b.TEE, launch, &b.PublishOptions, b.Now())
	b.sealed.source = b.src.Digest.String()
	return nil
}

func (b *build) writeLayer(ctx context.Context) error { return b.draft.writeLayer(ctx, b.random) }

func (b *build) describe(context.Context) error {
	if err := b.draft.describe(labels(&b.sealed.reg, b.publicSource(), b.exposed)); err != nil {
		return err
	}
	b.sealed.reg.Image = b.image.digest()
	return nil
}

// publicSource is the source's digest, if all may know it: who knows all of the
// source but a short secret in its configuration finds that by trying.
func (b *build) publicSource() digest.Digest {
	if b.PublishSource {
		return b.src.Digest
	}
	return ""
}

func (b *build) register(ctx context.Context) (err error) {
	b.undo, err = b.keep(ctx, b.sealed, b.replacing)
	return err
}

// publish attaches documents and gives the image its name. A layout's referrers
// come after the image, because they need its index; a registry keeps referrers
// of what it does not have yet.
func (b *build) publish(ctx context.Context) error {
	inLayout := strings.HasPrefix(b.Destination, "oci:")
	if !inLayout {
		if err := b.attach(ctx); err != nil {
			return errors.Join(fmt.Errorf("writing %s: %w", b.out.name, err), b.undo())
		}
	}
	if err := b.draft.publish(ctx); err != nil {
		return errors.Join(err, b.undo())
	}
	var err error
	if inLayout {
		err = b.attach(ctx)
	} else if b.Sign != nil && strings.HasPrefix(b.Destination, "docker://") {
		err = b.image.sign(ctx, b.System, b.Destination, b.Sign)
	}
	if err == nil && b.replacing != nil {
		err = b.replacing.end(ctx, b.Registrar)
	}
	if err != nil {
		return fmt.Errorf("image %s is whole, and registered: %w", b.out.name, err)
	}
	return nil
}

// attach stores the documents about the image.
func (b *build) attach(ctx context.Context) error {
	if len(b.Attach) == 0 {
		return nil
	}
	var docs []referrers.Document
	for _, d := range []struct {
		name string
		make func() (referrers.Document, error)
	}{
		{AttachRecord, func() (referrers.Document, error) { return b.sealed.recordDocument(b.PublishSource) }},
		{AttachProvenance, b.provenanceDocument},
		{AttachSBOM, func() (referrers.Document, error) {
			return referrers.Document{Type: referrers.TypeSBOM, MediaType: referrers.TypeSBOM, Content: b.packages}, nil
		}},
	} {
		if !slices.Contains(b.Attach, d.name) {
			continue
		}
		doc, err := d.make()
		if err != nil {
			return err
		}
		docs = append(docs, doc)
	}
	return attach(ctx, b.System, b.Destination, b.image.manifest, b.Now(), docs, b.Sign != nil)
}

func (b *build) provenanceDocument() (referrers.Document, error) {
	p := provenance{
		image: b.out.name, imageDigest: b.image.digest(), source: b.src.Name, sourceDigest: b.publicSource(),
		machine: &b.MachineOptions, filesystem: b.Filesystem, firmware: b.fw, version: b.Version, finished: b.Now(),
	}
	statement, err := p.statement(b.sealed)
	if err != nil {
		return referrers.Document{}, err
	}
	return signedDocument(referrers.TypeProvenance, statement, b.Sign)
}

func (b *build) result() *Result {
	return &Result{
		Image: b.out.name, Digest: b.image.digest(), ImageID: b.image.id(),
		Source: b.src.Name, SourceDigest: b.src.Digest.String(),
		DiskBytes: b.sealed.diskBytes(), Registered: b.Registrar != nil, Record: b.RecordPath, Registration: b.sealed.reg, Replaced: b.replacing,
	}
}
