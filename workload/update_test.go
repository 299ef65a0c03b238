package workload

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// keeper is a server that keeps what workloads boot.
type keeper struct {
	fakeServer
	mu     sync.Mutex
	agents map[kbs.Digest][]byte
	races  int // updates that somebody else forestalls
}

func (k *keeper) PutAgent(_ context.Context, segment []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.agents == nil {
		k.agents = map[kbs.Digest][]byte{}
	}
	k.agents[kbs.Sum384(segment)] = segment
	return nil
}

func (k *keeper) Agent(_ context.Context, d kbs.Digest) ([]byte, error) {
	if a := k.agents[d]; a != nil {
		return a, nil
	}
	return nil, &kbs.ProblemError{Problem: kbs.Problem{Status: 404, Code: kbs.CodeNotFound}}
}

func (k *keeper) Bootable(_ context.Context, id string) (*kbs.Bootable, error) {
	r := k.reqs[id]
	c, err := kbs.Canonical(r.Registration)
	return &kbs.Bootable{WorkloadID: id, Registration: r.Registration, RegistrationDigest: kbs.Sum384(c), Boot: r.Boot}, err
}

func (k *keeper) Boots(ctx context.Context, _ string) (*kbs.BootList, error) {
	l := &kbs.BootList{}
	for _, id := range slices.Sorted(func(yield func(string) bool) {
		for id := range k.reqs {
			if !yield(id) {
				return
			}
		}
	}) {
		b, err := k.Bootable(ctx, id)
		if err != nil {
			return nil, err
		}
		l.Boots = append(l.Boots, *b)
	}
	return l, nil
}

func (k *keeper) Update(ctx context.Context, list []kbs.Update) (results []kbs.UpdateResult, err error) {
	for _, u := range list {
		r := k.reqs[u.WorkloadID]
		if k.races > 0 {
			k.races--
			r.Registration.Image += "x"
			k.reqs[u.WorkloadID] = r
		}
		b, err := k.Bootable(ctx, u.WorkloadID)
		if err != nil {
			return nil, err
		}
		res := kbs.UpdateResult{WorkloadID: u.WorkloadID}
		if b.RegistrationDigest != u.Expect {
			res.Problem = &kbs.Problem{Code: kbs.CodeConflict}
		} else {
			r.Registration, res.Changed = u.Apply(r.Registration, r.Registration.Created.UTC())
			k.reqs[u.WorkloadID] = r
		}
		results = append(results, res)
	}
	return results, nil
}

// TestUpdate: what is computed without an image is what the image would measure
// on that firmware, for one workload and for all.
func TestUpdate(t *testing.T) {
	t.Parallel()
	server := &keeper{races: 2}
	next := changedFirmware(t)
	images := map[string]string{}
	for _, id := range []string{"w1", "w2"} {
		o := testOptions(t, nil)
		o.Registrar, o.WorkloadID = server, id
		if _, err := Build(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		images[id] = o.Destination
	}
	update := func(o UpdateOptions) (all []Updated, err error) {
		o.Server = server
		o.Each = func(u Updated) error { all = append(all, u); return nil }
		return all, Update(t.Context(), o)
	}
	if all, err := update(UpdateOptions{IDs: []string{"w1"}, Firmware: next}); err != nil || len(all) != 1 || !all[0].Changed {
		t.Fatalf("%+v, %v", all, err)
	}
	all, err := update(UpdateOptions{Firmware: next})
	if err != nil || len(all) != 2 || all[0].Changed || !all[1].Changed {
		t.Fatalf("%+v, %v", all, err)
	}
	fw, err := firmware.Load(next)
	if err != nil {
		t.Fatal(err)
	}
	for id, image := range images {
		initrd := readOutput(t, testOptions(t, nil).System, image).files[krun.InitrdFile]
		want, err := measure.Registered(kbs.Sample, fw, initrd, measure.Shape{CPUs: 1, MemoryMiB: 512}, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := server.reqs[id].Registration.ReferenceValues.Measurements; len(got) != 2 || got[1] != want[0] {
			t.Errorf("%s: %+v, expected %+v behind the first", id, got, want)
		}
	}
}

// TestUpdateRefusesWhatIsNotTheImages: no measurement is registered of anything
// but what was built.
func TestUpdateRefusesWhatIsNotTheImages(t *testing.T) {
	t.Parallel()
	next := changedFirmware(t)
	built := &keeper{}
	o := testOptions(t, nil)
	o.Registrar, o.WorkloadID = built, "w1"
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		change func(k *keeper, r *kbs.RegisterRequest)
		want   string
	}{
		"other identity": {func(_ *keeper, r *kbs.RegisterRequest) { r.Boot.Identity = []byte("x") }, "not the one registered"},
		"other bytes":    {func(_ *keeper, r *kbs.RegisterRequest) { r.Boot.Initrd = kbs.Digest{1} }, "in other bytes"},
		"no agent":       {func(k *keeper, _ *kbs.RegisterRequest) { k.agents = nil }, "--agent"},
		"no boot":        {func(_ *keeper, r *kbs.RegisterRequest) { r.Boot = nil }, "earlier version"},
		"contended":      {func(k *keeper, _ *kbs.RegisterRequest) { k.races = maxRaces }, "goes on changing"},
		"of CoCo":        {func(_ *keeper, r *kbs.RegisterRequest) { r.Registration.Type = kbs.TypeTrustee }, "trustee dialect"},
	} {
		r := built.reqs["w1"]
		boot := *r.Boot
		r.Boot = &boot
		k := &keeper{agents: built.agents}
		x.change(k, &r)
		k.reqs = map[string]kbs.RegisterRequest{"w1": r}
		var told []Updated
		err := Update(t.Context(), UpdateOptions{IDs: []string{"w1"}, Firmware: next, Server: k, Each: func(u Updated) error { told = append(told, u); return nil }})
		if err == nil || len(told) != 1 || !strings.Contains(told[0].Error, x.want) || len(k.reqs["w1"].Registration.ReferenceValues.Measurements) != 1 {
			t.Errorf("%s: %+v, %v", name, told, err)
		}
	}
	var agents []kbs.Digest
	k := &keeper{fakeServer: fakeServer{reqs: built.reqs}} // the agent is at hand
	err := Update(t.Context(), UpdateOptions{Firmware: next, Agent: o.Agent, Server: k, Each: func(Updated) error { return nil }})
	for d := range k.agents {
		agents = append(agents, d)
	}
	if err != nil || len(agents) != 1 || agents[0] != built.reqs["w1"].Boot.Agent {
		t.Errorf("with --agent: %v, %v", agents, err)
	}
}
