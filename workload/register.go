package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/workload/scratch"
)

// maxRecordBytes bounds a record: an identity of 64 KiB in base64, and room.
const maxRecordBytes = 256 << 10

// rollbackTime is how long a failed build tries to take its registration back.
const rollbackTime = 10 * time.Second

// checkRecordPath refuses a record that could not be written.
func checkRecordPath(record string) error {
	if record == "" {
		return nil
	}
	there, err := scratch.Exists(record)
	if err != nil {
		return fmt.Errorf("record %s: %w", record, err)
	}
	if there {
		return hint.With(fmt.Errorf("record %s: %w", record, os.ErrExist), "it may hold another workload's only key: choose another name or move it away")
	}
	if st, err := os.Stat(filepath.Dir(record)); err != nil || !st.IsDir() {
		return fmt.Errorf("record %s: its directory does not exist", record)
	}
	return nil
}

// checkUnregistered refuses a workload id that the server knows already.
func checkUnregistered(ctx context.Context, server Registrar, id string) error {
	if server == nil {
		return nil
	}
	_, err := server.Get(ctx, id)
	var p *kbs.ProblemError
	switch {
	case err == nil:
		return hint.With(fmt.Errorf("workload %s is registered already", id), "add --replace for its next version, choose another --workload-id, or `ccrun workload rm` it first")
	case errors.As(err, &p) && p.Code == kbs.CodeNotFound:
		return nil
	}
	return registerHint(fmt.Errorf("asking the server about workload %s: %w", id, err))
}

// keep hands the DiskKey to the server, or to the record if there is no
// server, and returns how to take that back.
func (p *PublishOptions) keep(ctx context.Context, s *sealed, replacing *Replaced) (undo func() error, err error) {
	undo = func() error { return nil }
	if p.Registrar != nil {
		diskKey := bytes.Clone(s.diskKey.Reveal())
		defer clear(diskKey)
		if err := p.Registrar.PutAgent(ctx, s.agent); err != nil {
			return nil, registerHint(fmt.Errorf("giving the server the guest agent: %w", err))
		}
		created, err := p.Registrar.Register(ctx, kbs.RegisterRequest{Registration: s.reg, DiskKey: diskKey, Boot: s.boot(), Replace: replacing.request()})
		if err != nil {
			return nil, registerHint(fmt.Errorf("registering workload %s: %w", s.reg.WorkloadID, err))
		}
		if created {
			undo = func() error { return unregister(ctx, p.Registrar, replacing.successor(s.reg.WorkloadID)) }
		}
	}
	if p.RecordPath == "" {
		return undo, nil
	}
	if err := s.writeRecord(p.RecordPath, p.Registrar == nil); err != nil {
		return nil, errors.Join(fmt.Errorf("writing record: %w", err), undo())
	}
	unregister := undo
	return func() error { return errors.Join(unregister(), os.Remove(p.RecordPath)) }, nil
}

// unregister works also when ctx has been cancelled: that is why we are here.
func unregister(ctx context.Context, server Registrar, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	if err := server.Remove(ctx, id); err != nil {
		return fmt.Errorf("taking back registration %s (`ccrun workload rm` it): %w", id, err)
	}
	return nil
}

func (s *sealed) writeRecord(path string, withDiskKey bool) error {
	r := kbs.Record{Version: 1, Registration: s.reg, Identity: s.identity, Source: s.source}
	if withDiskKey {
		r.Agent, r.Initrd = s.boot().Agent, s.boot().Initrd
		r.DiskKey = bytes.Clone(s.diskKey.Reveal())
		defer clear(r.DiskKey)
	}
	return writeCanonical(path, r)
}

// writeCanonical writes a record, which may hold a secret, for its owner alone.
func writeCanonical(path string, record any) error {
	j, err := kbs.Canonical(record)
	if err != nil {
		return err
	}
	defer clear(j)
	return scratch.WriteFile(path, append(j, '\n'), 0o600)
}

const recordHint = "`ccrun build --no-register --record FILE` writes one"

// ReadRecord reads and checks a record that Build wrote.
func ReadRecord(path string) (*kbs.Record, error) {
	b, err := bounded.File(path, maxRecordBytes)
	if err != nil {
		return nil, hint.With(fmt.Errorf("reading record: %w", err), recordHint)
	}
	defer clear(b)
	var r kbs.Record
	if err := kbs.UnmarshalStrict(b, &r); err != nil {
		return nil, hint.With(fmt.Errorf("%s is no record: %w", path, err), recordHint)
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

// CheckACPI refuses a record whose machine runs the host's ACPI code, or does not
// say: with allow, one that says so is good.
func CheckACPI(r *kbs.Record, allow bool) error {
	allowed := false
	for _, m := range r.Registration.ReferenceValues.Measurements {
		switch {
		case m.ACPI == kbs.ACPIAllowed && !allow:
			return hint.With(fmt.Errorf("measurement %s of profile %s lets the host's ACPI code run: %s", m.LaunchDigest, m.Profile, krun.ACPIWarning),
				"build with firmware whose command line has %s, or register with --allow-acpi", measure.StopsACPI)
		case m.ACPI != kbs.ACPIAllowed && m.ACPI != kbs.ACPIOff && kbs.NeedsACPI(m.Profile):
			return hint.With(fmt.Errorf("measurement %s of profile %s does not say whether the host's ACPI code runs: acpi is %q, expected %s or %s",
				m.LaunchDigest, m.Profile, m.ACPI, kbs.ACPIOff, kbs.ACPIAllowed), "measure it again with `ccrun measure` or `ccrun build` of this version")
		}
		allowed = allowed || m.ACPI == kbs.ACPIAllowed
	}
	if allow && !allowed {
		return hint.With(hint.Usagef("the host's ACPI code is allowed, but no measurement of the record lets it run"), "leave --allow-acpi out")
	}
	return nil
}

// Register hands a record to the server, as the next version of its workload if
// next is not nil. created is false if exactly this was there already: a run that
// was killed can be repeated.
func Register(ctx context.Context, to Registrar, r *kbs.Record, next *Replacement) (created bool, replaced *Replaced, err error) {
	if len(r.DiskKey) == 0 {
		return false, nil, hint.With(fmt.Errorf("record of workload %s holds no disk key", r.Registration.WorkloadID),
			"only a record from `ccrun build --no-register` does: this workload was registered when it was built")
	}
	if next != nil {
		if replaced, err = next.before(ctx, to, r.Registration); err != nil {
			return false, nil, err
		}
	}
	created, err = to.Register(ctx, kbs.RegisterRequest{Registration: r.Registration, DiskKey: r.DiskKey, Boot: r.Boot(), Replace: replaced.request()})
	if err != nil {
		return false, nil, registerHint(fmt.Errorf("registering workload %s: %w", r.Registration.WorkloadID, err))
	}
	if replaced != nil {
		err = replaced.end(ctx, to)
	}
	return created, replaced, err
}
