package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/sealedlog"
	"github.com/ccrun/ccrun/secret"
)

// asking is what the agent asks its servers with. It is open from finding the
// report interface until the release is confirmed.
type asking struct {
	client  *kbs.Client
	request kbs.ReleaseRequest
	session *kbs.Session // nil before the DiskKey came in it
	source  Attester
}

func (a *asking) close() {
	if a.session != nil {
		a.session.Close()
	}
	if c, ok := a.source.(io.Closer); ok {
		_ = c.Close()
	}
}

// obtainKey attests to the servers of the identity, in turn, and gets the
// DiskKey from the first that releases it. How long it waits for one is the
// owner's choice, and no time of the boot's.
func (b *boot) obtainKey(ctx context.Context) error {
	source, err := b.find(ctx, b.identity.TEE)
	if err != nil {
		return fmt.Errorf("finding the TEE's report interface: %w", err)
	}
	b.asking = b.ask(ctx, source)
	if b.identity.Policy.CDH || b.identity.Policy.SecretRefresh != nil {
		if b.renewalKey, b.asking.request.RenewalKey, err = kbs.NewRenewalKey(); err != nil {
			return err
		}
	}
	defer b.limit.suspend()()
	b.asking.session, b.diskKey, err = b.asking.client.Open(ctx, b.asking.request)
	if err != nil {
		b.asking.close()
		return b.refused(err)
	}
	return b.clock.check()
}

func (b *boot) ask(ctx context.Context, source Attester) *asking {
	b.clock = newClock(b.console.line)
	servers, said := b.identity.Servers, complaints{line: b.console.line}
	client := &kbs.Client{URLs: servers.URLs, PinnedKeys: servers.PinnedKeys, Wait: servers.Wait()}
	return &asking{client: client, source: source, request: kbs.ReleaseRequest{
		WorkloadID:     b.identity.WorkloadID,
		TEE:            b.identity.TEE,
		IdentityDigest: b.identityDigest,
		FooterDigest:   b.disk.footerDigest,
		Attest: func(ctx context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
			ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, errBootTimeout)
			defer cancel()
			holdMemory(true) // there is a TEEKey now
			e, err := source.Attest(ctx, rd)
			if err == nil {
				b.console.timing("got evidence")
			}
			return e, err
		},
		Opens:        func(diskKey secret.Bytes) bool { return b.opens(ctx, diskKey) },
		OnServerTime: b.clock.compare,
		OnRetry: func(why error, pause time.Duration) {
			if b.asking.session == nil { // nothing was released to the TEEKey
				holdMemory(false)
			}
			said.retry(withReleaseHint(why, b.network), pause)
		},
		OnMoved: func(from, to string) { said.once(from + " has moved: asking " + to) },
	}}
}

// fetchRenewal gets the running workload's right to secrets, where it is to have
// one and has it not yet.
func (b *boot) fetchRenewal(ctx context.Context) error {
	if b.renewalKey == nil || b.renewal != nil {
		return nil
	}
	err := b.inSession(ctx, "getting the right to renew", func(s *kbs.Session) (err error) {
		b.renewal, err = s.Renewal(ctx, b.renewalKey)
		return err
	})
	if err != nil {
		return b.refused(err)
	}
	return nil
}

// confirmRelease has a server remember that this VM's disk is open: from then
// on no report that is made in it is worth a DiskKey, whoever made it. Nothing
// else runs before.
func (b *boot) confirmRelease(ctx context.Context) error {
	defer b.asking.close()
	defer b.limit.suspend()()
	if err := b.asking.client.Confirm(ctx, b.asking.request, b.asking.session); err != nil {
		return b.refused(err)
	}
	if err := b.clock.check(); err != nil {
		return err
	}
	if b.identity.TEE == kbs.TDX { // whose quotes have no REPORT_ID
		return spoilQuotes(rtmr3)
	}
	return nil
}

// makeLogKey draws the key of this boot's log, if that is to be sealed. The
// session's REPORT_DATA in it says which session this was.
func (b *boot) makeLogKey(context.Context) (err error) {
	if b.identity.Logs == nil {
		return nil
	}
	defer b.logSeed.Wipe()
	rd := b.asking.session.ReportData()
	b.logKey, err = newLogKey(sealedlog.About{
		WorkloadID: b.identity.WorkloadID, IdentityDigest: b.identityDigest, ReportData: rd[:], Began: time.Now().Unix(),
	}, b.identity.Logs, b.logSeed)
	return err
}

// refused gives a server's refusal its exit status.
func (b *boot) refused(err error) error {
	if denied(err) {
		return &statusError{statusDenied, err}
	}
	return withReleaseHint(err, b.network)
}

// denied says whether a server looked at this guest and refused it, which
// asking again does not change, as it does for a server in trouble.
func denied(err error) bool {
	var p *kbs.ProblemError
	return errors.As(err, &p) && (p.Code == kbs.CodeAttestationDenied || p.Code == kbs.CodeForbidden)
}

// opens says whether a DiskKey is this disk's, and keeps the volume key. While
// the workload's DiskKey is rotated, images with the old and with the new one
// run side by side; the header tells which this is.
func (b *boot) opens(ctx context.Context, diskKey secret.Bytes) bool {
	vk, err := b.disk.header.UnlockContext(ctx, diskKey)
	if err != nil {
		return false
	}
	b.volumeKey = vk
	return true
}

// withReleaseHint adds the next step where the server gave none.
func withReleaseHint(err error, n *network) error {
	var refused *kbs.ProblemError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &refused) && refused.Code == kbs.CodeAlreadyReleased:
		return hint.With(err, "start the container again: its new VM gets the key")
	case errors.As(err, &refused) && refused.Code == kbs.CodeNotFound:
		return hint.With(err, "the attest-server is older than this image's agent; update it")
	case errors.As(err, &refused):
		return err
	case errors.Is(err, kbs.ErrUnpinned) && hint.Of(err) != "":
		return err // of a move that leads to another server
	case errors.Is(err, kbs.ErrUnpinned):
		return hint.With(err, "another server answers, or its key was replaced; build the image with --attest-ca of the server that holds the key")
	case errors.As(err, &dns) && (n == nil || !n.dns.IsValid()):
		return hint.With(err, "the VM has no DNS; build the image with an IP address in --attest-url")
	case errors.As(err, &dns) || errors.As(err, &op):
		return hint.With(err, "check that the container's network reaches the server")
	}
	return err
}

// fetchConfig gets what the owner has set for the process, from the key server
// and so not from the host. Whoever builds an image without --env-allow and
// --args-allow takes nothing from there either, and is not asked.
func (b *boot) fetchConfig(ctx context.Context) error {
	policy := &b.identity.Policy
	if !policy.TakesConfig() {
		return nil
	}
	var raw secret.Bytes
	err := b.inSession(ctx, "fetching the configuration", func(s *kbs.Session) (err error) {
		raw, err = s.Config(ctx)
		return err
	})
	if err != nil {
		return openly(b.refused(err))
	}
	defer raw.Wipe()
	if b.config, err = checkedConfig(raw, policy); err != nil {
		return b.tellOwner(ctx, classed(classConfigured, fmt.Errorf("configuration of the workload: %w", err)))
	}
	return nil
}

func checkedConfig(raw secret.Bytes, policy *krun.LaunchPolicy) (*kbs.WorkloadConfig, error) {
	c, err := kbs.DecodeConfig(raw.Reveal())
	if err != nil {
		return nil, err
	}
	return c, policy.CheckConfig(c)
}

// inSession calls act with the session of the DiskKey or, where that fails, with
// new ones. How long it waits for a server is the owner's choice.
func (b *boot) inSession(ctx context.Context, doing string, act func(*kbs.Session) error) error {
	defer b.limit.suspend()()
	a := b.asking
	return a.client.During(ctx, a.request, a.session, doing, act)
}

// tellOwner reports err to the workload's owner, and makes of it what the host
// may read: its class, and where the owner finds the rest. A report that does not
// arrive changes nothing of the refusal.
func (b *boot) tellOwner(ctx context.Context, err error) error {
	number, failed := b.asking.session.Report(ctx, err.Error())
	if failed != nil {
		b.console.timing(fmt.Sprintf("telling the owner: %v", failed))
		return err
	}
	return openly(hint.With(errors.New(classOf(err).String()), "the workload's owner sees what with `ccrun explain %s`", number))
}
