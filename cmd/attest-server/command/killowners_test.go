package command

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// promise is an audit entry that an acknowledged write must have left.
type promise struct{ action, object, detail string }

func (p promise) keeps(e kbs.AuditEntry) bool {
	return e.Action == p.action && e.Object == p.object && strings.Contains(e.Detail, p.detail)
}

func (k *killed) promise(action, object, detail string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owners.promised = append(k.owners.promised, promise{action, object, detail})
}

// owners is what owners and the operator were told, beside registrations and
// rotations. What was asked for and not answered may have happened.
type owners struct {
	database string // of the configuration; empty: SQLite
	witness  string // a directory that is told the log's head, see docs/operations.md
	promised []promise
	fates    map[string]string // of workloads: revoked or removed
	// Each begins with what was acknowledged, and goes on with what was asked for
	// since: of several requests without an answer, any may have been the last.
	values, policies []string // of the resource; digests of the configuration
	set              bool     // the resource was set, acknowledged
	tenants          []string
	written          int // configurations
}

const (
	isRevoked, isRemoved, mayBeRemoved = "revoked", "removed", "revoked, and perhaps removed"

	stormRepo, stormWitness = "storm", "storm"
)

// own starts what owners and the operator do in a round.
func (k *killed) own(work func(func(i int)), c *kbs.AdminClient, round int, log *buffer, server *exec.Cmd, gone chan struct{}) {
	k.owners.fates = map[string]string{}
	work(func(i int) {
		k.revoke(c, fmt.Sprintf("r-%d-%d", round, i), 3+(round<<16|3<<14|i), i%2 == 0)
		k.setTenant(fmt.Sprintf("t%d-%d", round%50, i%5), i)
	})
	work(func(i int) { k.setResource(c, fmt.Sprintf("value %d of round %d", i, round)) })
	work(func(int) { k.reconfigure(log, server, gone) })
	if round%2 == 1 {
		die := k.random.IntN(2) == 0
		work(func(int) { k.rotateMasterKey(gone, die) })
	}
}

// revoke registers a workload, revokes it and perhaps removes it.
func (k *killed) revoke(c *kbs.AdminClient, id string, n int, remove bool) {
	ctx := context.Background()
	if _, err := c.Register(ctx, registration(id, n)); err != nil {
		return
	}
	k.promise("workload.register", id, "")
	if _, err := c.Revoke(ctx, id); err != nil {
		return
	}
	k.promise("workload.revoke", id, "")
	k.owners.fates[id] = isRevoked
	k.happened(revoked)
	if !remove {
		return
	}
	k.owners.fates[id] = mayBeRemoved
	if err := c.Remove(ctx, id); err == nil {
		k.owners.fates[id] = isRemoved
		k.promise("workload.remove", id, "")
	}
}

func stormResource() kbs.ResourceID { return kbs.ResourceID{Repo: stormRepo, Type: "t", Tag: "g"} }

func (k *killed) setResource(c *kbs.AdminClient, value string) {
	k.owners.values = append(k.owners.values, value)
	a, err := c.SetResource(context.Background(), stormResource(),
		kbs.ResourceRequest{Value: []byte(value), Policy: kbs.ResourcePolicy{Workloads: []string{loadWorkload}}})
	if err != nil {
		return
	}
	k.owners.values, k.owners.set = []string{value}, true
	k.promise("resource.set", stormResource().String(), fmt.Sprintf("version %d,", a.Version))
	k.happened(valued)
}

// configure writes a configuration, in turn with another policy, and returns
// its digest.
func (k *killed) configure(n int) (digest string) {
	text := fmt.Sprintf("# %d\ndata = %q\n", n, k.dir)
	if k.owners.database != "" {
		text += fmt.Sprintf("database = %q\n", k.owners.database)
	}
	text += fmt.Sprintf("\n[[witness]]\nname = %q\nurl = %q\n", stormWitness, "file://"+k.owners.witness)
	text += fmt.Sprintf("\n[policy.snp]\nsigners = [%s]\n", []string{`"VCEK"`, `"VCEK", "VLEK"`}[n%2])
	if err := os.WriteFile(k.config+".new", []byte(text), 0o600); err != nil {
		k.Error(err)
	}
	if err := os.Rename(k.config+".new", k.config); err != nil {
		k.Error(err)
	}
	var cfg Config
	if err := cfg.read(k.config); err != nil {
		k.Error(err)
	}
	k.owners.policies = append(k.owners.policies, cfg.inForce.Configuration)
	return cfg.inForce.Configuration
}

// reconfigure has the server read another configuration, and waits until it
// says so.
func (k *killed) reconfigure(log *buffer, server *exec.Cmd, gone chan struct{}) {
	k.owners.written++
	digest := k.configure(k.owners.written)
	if err := server.Process.Signal(syscall.SIGHUP); err != nil {
		return
	}
	for !strings.Contains(log.String(), "-> "+digest) {
		select {
		case <-gone:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
	k.owners.policies = []string{digest}
	k.promise("configuration.change", "/configuration", "-> "+digest)
	k.happened(readAgain)
}

// setTenant is a command beside the server, without the master key.
func (k *killed) setTenant(name string, n int) {
	if _, _, err := run(context.Background(), "tenant", "set", name, "--config", k.config, "--max-workloads", fmt.Sprint(n)); err != nil {
		return
	}
	k.owners.tenants = append(k.owners.tenants, name)
	k.promise("tenant.set", name, fmt.Sprintf("workloads %d,", n))
	k.happened(tenanted)
}

// rotateMasterKey is a process beside the server. It may be killed with it.
func (k *killed) rotateMasterKey(gone chan struct{}, die bool) {
	self, err := os.Executable()
	if err != nil {
		k.Error(err)
		return
	}
	cmd := exec.Command(self, "master-key", "rotate", "--config", k.config)
	cmd.Env = append(os.Environ(), asMain+"=1")
	said := new(buffer)
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		k.Error(err)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-gone:
		if die {
			_ = cmd.Process.Kill()
			<-ended
			return
		}
		err = <-ended
	}
	if err != nil {
		k.Errorf("master-key rotate: %v: %s", err, said.String())
		return
	}
	k.promise("store.rotate-master-key", "", "")
	k.happened(sealedAnew)
}
