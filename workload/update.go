package workload

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// Updater is the server's side of Update: *kbs.AdminClient.
type Updater interface {
	Bootable(ctx context.Context, id string) (*kbs.Bootable, error)
	Boots(ctx context.Context, after string) (*kbs.BootList, error)
	Agent(ctx context.Context, digest kbs.Digest) ([]byte, error)
	PutAgent(ctx context.Context, segment []byte) error
	Update(ctx context.Context, updates []kbs.Update) ([]kbs.UpdateResult, error)
}

// UpdateOptions say which registrations get what other firmware measures.
type UpdateOptions struct {
	IDs      []string // none: all that the firmware can boot
	Firmware string
	// OthersNotAfter ends the validity of what the firmware did not measure; nil:
	// it stays valid.
	OthersNotAfter *time.Time
	// Agent is the guest agent of images whose server does not have it; nil: none.
	Agent  []byte
	Server Updater
	// Each is told what became of each workload.
	Each func(Updated) error
}

// Updated is what became of a workload.
type Updated struct {
	WorkloadID   string            `json:"workload_id"`
	Changed      bool              `json:"changed"` // false without Error: it was so before
	Measurements []kbs.Measurement `json:"measurements,omitempty"`
	Skipped      string            `json:"skipped,omitempty"` // why the firmware is not this workload's
	Error        string            `json:"error,omitempty"`
}

// ErrNotUpdated says that workloads were left as they were; Each was told why.
var ErrNotUpdated = errors.New("some workloads were not updated")

// Update adds what the firmware measures to registrations, computed from what
// the server keeps of each workload: no image is read, no disk and no key
// changed. It can be run again, also after a kill.
func Update(ctx context.Context, o UpdateOptions) error {
	fw, err := firmware.Load(o.Firmware)
	if err != nil {
		return err
	}
	u := &updating{UpdateOptions: o, fw: fw, agents: map[kbs.Digest][]byte{}, series: map[kbs.TEE]*measure.Series{}}
	if err := u.keepAgent(ctx); err != nil {
		return err
	}
	if len(o.IDs) > 0 {
		err = u.named(ctx)
	} else {
		err = u.all(ctx)
	}
	if err == nil && u.failed > 0 {
		err = fmt.Errorf("%d of %d: %w", u.failed, u.seen, ErrNotUpdated)
	}
	return err
}

// updating is an Update under way.
type updating struct {
	UpdateOptions
	fw     *firmware.Bundle
	agents map[kbs.Digest][]byte // segments
	series map[kbs.TEE]*measure.Series
	// hashed is SHA-384 so far, after the agent of that digest: thousands of
	// initrds begin with it.
	hashed       hash.Hash
	hashedAgent  kbs.Digest
	room         []byte // of the initrd before
	seen, failed int
}

// keepAgent gives the server an agent that images were built with elsewhere.
func (u *updating) keepAgent(ctx context.Context) error {
	if len(u.UpdateOptions.Agent) == 0 {
		return nil
	}
	segment, err := firmware.AgentSegment(u.UpdateOptions.Agent)
	if err == nil {
		err = u.Server.PutAgent(ctx, segment)
	}
	if err != nil {
		return fmt.Errorf("giving the server the guest agent: %w", err)
	}
	u.agents[kbs.Sum384(segment)] = segment
	return nil
}

func (u *updating) named(ctx context.Context) error {
	for _, id := range u.IDs {
		b, err := u.Server.Bootable(ctx, id)
		if err != nil {
			return registerHint(fmt.Errorf("asking the server about workload %s: %w", id, err))
		}
		page := []kbs.Bootable{*b}
		for _, name := range b.Others {
			other, err := u.Server.Bootable(ctx, name)
			if err != nil {
				return registerHint(fmt.Errorf("asking the server about workload %s: %w", name, err))
			}
			page = append(page, *other)
		}
		if err := u.page(ctx, page); err != nil {
			return err
		}
	}
	return nil
}

func (u *updating) all(ctx context.Context) error {
	for after := ""; ; {
		list, err := u.Server.Boots(ctx, after)
		if err != nil {
			return registerHint(fmt.Errorf("listing workloads: %w", err))
		}
		if err := u.page(ctx, list.Boots); err != nil {
			return err
		}
		if after = list.Next; after == "" {
			return nil
		}
	}
}

// maxRaces is how often a workload is read again that somebody else changed.
const maxRaces = 5

func (u *updating) page(ctx context.Context, list []kbs.Bootable) error {
	for range maxRaces {
		var updates []kbs.Update
		for _, b := range list {
			add, err := u.measure(ctx, b)
			if err != nil {
				if err := u.tell(b.WorkloadID, err); err != nil {
					return err
				}
				continue
			}
			updates = append(updates, kbs.Update{WorkloadID: b.WorkloadID, Expect: b.RegistrationDigest, Add: add, OthersNotAfter: u.OthersNotAfter})
		}
		if len(updates) == 0 {
			return nil
		}
		results, err := u.Server.Update(ctx, updates)
		if err != nil {
			return registerHint(fmt.Errorf("updating workloads: %w", err))
		}
		if list, err = u.settle(ctx, updates, results); err != nil || len(list) == 0 {
			return err
		}
	}
	for _, b := range list {
		if err := u.tell(b.WorkloadID, errors.New("somebody else goes on changing it")); err != nil {
			return err
		}
	}
	return nil
}

// settle tells what became of each, and reads again what was changed meanwhile.
func (u *updating) settle(ctx context.Context, updates []kbs.Update, results []kbs.UpdateResult) (again []kbs.Bootable, err error) {
	for i, r := range results {
		id := updates[i].WorkloadID
		switch {
		case r.WorkloadID != id:
			return nil, fmt.Errorf("updating workload %s: the server answers about %q", id, r.WorkloadID)
		case r.Problem == nil:
			err = u.told(Updated{WorkloadID: id, Changed: r.Changed, Measurements: updates[i].Add})
		case r.Problem.Code == kbs.CodeConflict:
			var b *kbs.Bootable
			if b, err = u.Server.Bootable(ctx, id); err == nil && !b.Revoked && b.RegistrationDigest != updates[i].Expect {
				again = append(again, *b)
				continue
			}
			err = u.tell(id, errors.New(r.Problem.Detail))
		default:
			err = u.tell(id, errors.New(r.Problem.Detail))
		}
		if err != nil {
			return nil, err
		}
	}
	return again, nil
}

// skipError is why a workload is none of the firmware's.
type skipError string

func (e skipError) Error() string { return string(e) }

func (u *updating) tell(id string, why error) error {
	var skip skipError
	if errors.As(why, &skip) && len(u.IDs) == 0 {
		return u.told(Updated{WorkloadID: id, Skipped: why.Error()})
	}
	u.failed++
	text := why.Error()
	if h := hint.Of(why); h != "" {
		text += "; next: " + h
	}
	return u.told(Updated{WorkloadID: id, Error: text})
}

func (u *updating) told(x Updated) error {
	u.seen++
	return u.Each(x)
}

// measure is what the firmware measures of the workload.
func (u *updating) measure(ctx context.Context, b kbs.Bootable) ([]kbs.Measurement, error) {
	ref := &b.Registration.ReferenceValues
	switch {
	case b.Revoked:
		return nil, skipError("it is revoked, or over")
	case b.Registration.Type != kbs.TypeNative:
		return nil, skipError("it is registered for the " + string(b.Registration.Type) + " dialect: register what its guest measures now")
	case len(measure.Profiles(ref.TEE, u.fw.Kind)) == 0:
		return nil, skipError(fmt.Sprintf("TEE %s does not boot firmware of kind %s", ref.TEE, u.fw.Kind))
	case b.Boot == nil:
		return nil, hint.With(errors.New("the server does not know what it boots: it was registered by an earlier version"),
			"build it again, with --replace, or register its record again with this version")
	}
	id, initrd, err := u.initrd(ctx, &b)
	if err != nil {
		return nil, err
	}
	s := u.series[ref.TEE]
	if s == nil {
		s = measure.NewSeries(ref.TEE, u.fw)
		u.series[ref.TEE] = s
	}
	if err := u.fits(id, ref.TEE); err != nil {
		return nil, err
	}
	m := ref.Measurements[0] // all are of one machine's shape
	return s.Registered(initrd, measure.Shape{CPUs: m.CPUs, MemoryMiB: m.MemoryMiB}, id.Policy.AllowACPI)
}

// fits says whether the firmware is of the VMM that the image is for.
func (u *updating) fits(id *krun.Identity, tee kbs.TEE) error {
	switch {
	case (id.VMM == krun.VMMQEMU) != (u.fw.Kind == firmware.KindOVMF) && tee != kbs.Sample:
		return skipError(fmt.Sprintf("its image is for another VMM than boots firmware of kind %s", u.fw.Kind))
	case tee == kbs.TDX:
		return skipError("a TD's registration has one set of RTMRs, which other firmware changes: build it again, with --replace")
	}
	return nil
}

// initrd is the workload's, until the next one is asked for.
func (u *updating) initrd(ctx context.Context, b *kbs.Bootable) (*krun.Identity, []byte, error) {
	agent := u.agents[b.Boot.Agent]
	if agent == nil {
		var err error
		if agent, err = u.Server.Agent(ctx, b.Boot.Agent); err != nil {
			return nil, nil, hint.With(fmt.Errorf("asking the server for the guest agent: %w", err), "give the image's ccrun-init with --agent FILE")
		}
		u.agents[b.Boot.Agent] = agent
	}
	if u.hashed == nil || u.hashedAgent != b.Boot.Agent {
		u.hashed, u.hashedAgent = sha512.New384(), b.Boot.Agent
		u.hashed.Write(agent)
	}
	id, initrd, err := initrdOf(u.room[:0], b, agent, func(initrd []byte) (d kbs.Digest, err error) {
		h, err := u.hashed.(hash.Cloner).Clone()
		if err != nil {
			return d, err
		}
		h.Write(initrd[len(agent):])
		return kbs.Digest(h.Sum(nil)), nil
	})
	if err == nil {
		u.room = initrd
	}
	return id, initrd, err
}

// Initrd is a workload's initrd, made again from what the server keeps of it and
// the agent's segment. Whatever does not come out as it was built is an error: its
// measurement would be nobody's.
func Initrd(b *kbs.Bootable, agent []byte) (*krun.Identity, []byte, error) {
	return initrdOf(nil, b, agent, func(initrd []byte) (kbs.Digest, error) { return kbs.Sum384(initrd), nil })
}

func initrdOf(room []byte, b *kbs.Bootable, agent []byte, sum func([]byte) (kbs.Digest, error)) (*krun.Identity, []byte, error) {
	if kbs.Sum384(b.Boot.Identity) != b.Registration.IdentityDigest {
		return nil, nil, errors.New("the identity that the server keeps is not the one registered")
	}
	id, err := krun.DecodeIdentity(b.Boot.Identity)
	if err != nil {
		return nil, nil, err
	}
	initrd, err := appendInitrd(room, agent, b.Boot.Identity)
	if err != nil {
		return nil, nil, err
	}
	got, err := sum(initrd)
	if err != nil {
		return nil, nil, err
	}
	if got != b.Boot.Initrd {
		return nil, nil, hint.With(errors.New("this ccrun packs the identity in other bytes than the one that built the image"), "use the version that built it")
	}
	return id, initrd, nil
}
