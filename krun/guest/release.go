package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// obtainKey attests to the servers of the identity, in turn, and gets the
// DiskKey from the first that releases it. How long it waits for one is the
// owner's choice, and no time of the boot's.
func (b *boot) obtainKey(ctx context.Context) error {
	source, err := b.find(ctx, b.identity.TEE)
	if err != nil {
		return fmt.Errorf("finding the TEE's report interface: %w", err)
	}
	if c, ok := source.(io.Closer); ok {
		defer func() { _ = c.Close() }()
	}
	defer b.limit.suspend()()
	servers, said := b.identity.Servers, complaints{line: b.console.line}
	client := &kbs.Client{URLs: servers.URLs, PinnedKeys: servers.PinnedKeys, Wait: servers.Wait()}
	b.diskKey, err = client.Release(ctx, kbs.ReleaseRequest{
		WorkloadID:     b.identity.WorkloadID,
		TEE:            b.identity.TEE,
		IdentityDigest: b.identityDigest,
		FooterDigest:   b.disk.footerDigest,
		Attest: func(ctx context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
			ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, errBootTimeout)
			defer cancel()
			e, err := source.Attest(ctx, rd)
			if err == nil {
				b.console.timing("got evidence")
			}
			return e, err
		},
		Opens:        b.opens,
		OnServerTime: b.setClock,
		OnRetry: func(why error, pause time.Duration) {
			said.retry(withReleaseHint(why, b.network), pause)
		},
	})
	if denied(err) {
		return &statusError{statusDenied, err}
	}
	if err != nil {
		return withReleaseHint(err, b.network)
	}
	if b.diskKey.Len() == 0 {
		return errors.New("the server released an empty disk key")
	}
	return nil
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
func (b *boot) opens(diskKey secret.Bytes) bool {
	vk, err := b.disk.header.Unlock(diskKey)
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
	case errors.As(err, &refused):
		return err
	case errors.Is(err, kbs.ErrUnpinned):
		return hint.With(err, "another server answers, or its key was replaced; build the image with --attest-ca of the server that holds the key")
	case errors.As(err, &dns) && (n == nil || !n.dns.IsValid()):
		return hint.With(err, "the VM has no DNS; build the image with an IP address in --attest-url")
	case errors.As(err, &dns) || errors.As(err, &op):
		return hint.With(err, "check that the container's network reaches the server")
	}
	return err
}

// clockTolerance is how far the host's clock may be off before the server's
// replaces it; below, the network's delay is as large.
const clockTolerance = 10 * time.Second

// setClock takes the time from the authenticated server, because the VM's
// clock is the host's and the workload checks certificates by it.
func (b *boot) setClock(t time.Time) {
	if off := time.Until(t); off.Abs() < clockTolerance {
		return
	}
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		b.console.timing(fmt.Sprintf("setting the clock: %v", err))
	}
}
