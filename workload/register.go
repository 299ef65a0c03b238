package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// maxRecordBytes bounds a record: an identity of 64 KiB in base64, and room.
const maxRecordBytes = 256 << 10

// rollbackTime is how long a failed build tries to take its registration back.
const rollbackTime = 10 * time.Second

// preflight finds out before the long part whether its result can be kept.
func (o *Options) preflight(ctx context.Context) error {
	if o.RecordPath != "" {
		there, err := scratch.Exists(o.RecordPath)
		if err != nil {
			return fmt.Errorf("record %s: %w", o.RecordPath, err)
		}
		if there {
			return hint.With(fmt.Errorf("record %s: %w", o.RecordPath, os.ErrExist), "it may hold another workload's only key: choose another name or move it away")
		}
		if st, err := os.Stat(filepath.Dir(o.RecordPath)); err != nil || !st.IsDir() {
			return fmt.Errorf("record %s: its directory does not exist", o.RecordPath)
		}
	}
	if o.Registrar == nil {
		return nil
	}
	_, err := o.Registrar.Get(ctx, o.WorkloadID)
	var p *kbs.ProblemError
	switch {
	case err == nil:
		return hint.With(fmt.Errorf("workload %s is registered already", o.WorkloadID), "choose another --workload-id, or `ccrun workload rm` it first")
	case errors.As(err, &p) && p.Code == kbs.CodeNotFound:
		return nil
	}
	return registerHint(fmt.Errorf("asking the server about workload %s: %w", o.WorkloadID, err))
}

// registerHint adds the next step where the error itself has none.
func registerHint(err error) error {
	if hint.Of(err) != "" {
		return err
	}
	return hint.With(err, "check --server, --ca and --token-file; or build with --no-register --record FILE and register later")
}

// finish registers the workload, writes its record and then publishes the
// image. In this order a kill at any point leaves at worst a registration or
// record of an image that nobody has, never a name that points to an image
// whose key is lost. A failure takes both back.
func (b *build) finish(ctx context.Context, s *sealed, layer blob.Info, ports string) (_ *Result, err error) {
	l := labels(&s.reg, b.src.Digest, ports)
	config, err := imageConfig(b.Now().UTC(), layer.Digest, l, b.src.Config.Config.ExposedPorts)
	if err != nil {
		return nil, err
	}
	manifest, err := imageManifest(b.dst.Accepts(), blob.Info{Digest: digest.FromBytes(config), Size: int64(len(config))}, layer, l)
	if err != nil {
		return nil, err
	}
	s.reg.Image = digest.FromBytes(manifest).String()
	undo, err := b.keep(ctx, s)
	if err != nil {
		return nil, err
	}
	inLayout := strings.HasPrefix(b.Destination, "oci:")
	if !inLayout { // a registry keeps referrers of what it does not have yet
		if err := b.attach(ctx, s, manifest); err != nil {
			return nil, errors.Join(fmt.Errorf("writing %s: %w", b.image, err), undo())
		}
	}
	if err := b.dst.Publish(ctx, config, manifest); err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", b.image, err), undo())
	}
	if inLayout {
		err = b.attach(ctx, s, manifest)
	} else {
		err = b.signImage(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s is whole, and registered: %w", b.image, err)
	}
	return &Result{
		Image: b.image, Digest: s.reg.Image, ImageID: digest.FromBytes(config).String(),
		Source: b.src.Name, SourceDigest: b.src.Digest.String(),
		DiskBytes: s.diskBytes(), Registered: b.Registrar != nil, Record: b.RecordPath, Registration: s.reg,
	}, nil
}

// keep hands the DiskKey to the server, or to the record if there is no
// server, and returns how to take that back.
func (b *build) keep(ctx context.Context, s *sealed) (undo func() error, err error) {
	undo = func() error { return nil }
	if b.Registrar != nil {
		key := append([]byte(nil), s.diskKey.Reveal()...)
		defer clear(key)
		created, err := b.Registrar.Register(ctx, kbs.RegisterRequest{Registration: s.reg, DiskKey: key})
		if err != nil {
			return nil, registerHint(fmt.Errorf("registering workload %s: %w", b.WorkloadID, err))
		}
		if created {
			undo = func() error { return b.unregister(ctx) }
		}
	}
	if b.RecordPath == "" {
		return undo, nil
	}
	if err := b.writeRecord(s); err != nil {
		return nil, errors.Join(fmt.Errorf("writing record: %w", err), undo())
	}
	unregister := undo
	return func() error { return errors.Join(unregister(), os.Remove(b.RecordPath)) }, nil
}

// unregister works also when ctx has been cancelled: that is why we are here.
func (b *build) unregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	if err := b.Registrar.Remove(ctx, b.WorkloadID); err != nil {
		return fmt.Errorf("taking back registration %s (`ccrun workload rm` it): %w", b.WorkloadID, err)
	}
	return nil
}

func (b *build) writeRecord(s *sealed) error {
	r := kbs.Record{Version: 1, Registration: s.reg, Identity: s.identity}
	if b.Registrar == nil {
		r.DiskKey = append([]byte(nil), s.diskKey.Reveal()...)
		defer clear(r.DiskKey)
	}
	j, err := kbs.Canonical(r)
	if err != nil {
		return err
	}
	defer clear(j)
	return scratch.WriteFile(b.RecordPath, append(j, '\n'), 0o600)
}

// ReadRecord reads and checks a record that Build wrote.
func ReadRecord(path string) (*kbs.Record, error) {
	b, err := bounded.File(path, maxRecordBytes)
	if err != nil {
		return nil, fmt.Errorf("reading record: %w", err)
	}
	defer clear(b)
	var r kbs.Record
	if err := kbs.UnmarshalStrict(b, &r); err != nil {
		return nil, fmt.Errorf("reading record %s: %w", path, err)
	}
	return &r, checkRecord(path, &r)
}

func checkRecord(path string, r *kbs.Record) error {
	if r.Version != 1 {
		return fmt.Errorf("record %s: version %d, expected 1", path, r.Version)
	}
	id, err := krun.DecodeIdentity(r.Identity)
	if err != nil {
		return fmt.Errorf("record %s: %w", path, err)
	}
	switch {
	case kbs.Sum384(r.Identity) != r.Registration.IdentityDigest:
		return fmt.Errorf("record %s: its identity is not the one registered", path)
	case id.WorkloadID != r.Registration.WorkloadID || id.TEE != r.Registration.ReferenceValues.TEE:
		return fmt.Errorf("record %s: identity and registration name different workloads", path)
	case len(r.Registration.ReferenceValues.Measurements) == 0:
		return fmt.Errorf("record %s: no launch measurement", path)
	}
	return nil
}

// Register hands a record to the server. created is false if exactly this
// workload was there already.
func Register(ctx context.Context, to Registrar, r *kbs.Record) (created bool, err error) {
	if len(r.DiskKey) == 0 {
		return false, hint.With(fmt.Errorf("record of workload %s holds no disk key", r.Registration.WorkloadID),
			"only a record from `ccrun build --no-register` does: this workload was registered when it was built")
	}
	created, err = to.Register(ctx, kbs.RegisterRequest{Registration: r.Registration, DiskKey: r.DiskKey})
	if err != nil {
		return false, registerHint(fmt.Errorf("registering workload %s: %w", r.Registration.WorkloadID, err))
	}
	return created, nil
}
