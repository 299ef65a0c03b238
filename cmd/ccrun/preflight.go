package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload"
)

// preflightPatience bounds a look at a server that guests will ask.
const preflightPatience = 3 * time.Second

// mayRegister finds out, before anything is built, that who holds the token may
// not register what is to be built. An id of ours gets the tenant's prefix. A
// server that does not say who that is, is asked by the build later.
func mayRegister(ctx context.Context, server whoami, o *workload.Options) error {
	ctx, cancel := context.WithTimeout(ctx, preflightPatience)
	defer cancel()
	who, err := server.Whoami(ctx)
	switch {
	case err != nil:
		return nil
	case who.Role == auditor:
		return hint.With(errors.New("the token is an auditor's, who registers nothing"),
			"give a publisher's with --token-file; `attest-server token create --role publisher` makes one")
	case o.WorkloadID == "" && who.Tenant != "":
		o.IDPrefix = who.Tenant + "."
	case !kbs.Owns(who.Tenant, o.WorkloadID):
		return hint.With(face.Usagef("--workload-id %s: the token is of tenant %s, whose workloads' ids begin with %q", o.WorkloadID, who.Tenant, who.Tenant+"."),
			"say --workload-id %s.%s", who.Tenant, o.WorkloadID)
	}
	return nil
}

// whoami is what mayRegister needs of *kbs.AdminClient.
type whoami interface {
	Whoami(context.Context) (*kbs.Whoami, error)
}

// auditor is the role that may change nothing.
const auditor = "auditor"

// preflight looks, before anything is built or registered, for what would only
// show when the first guest starts: a server that it cannot reach, or would not
// trust.
func preflight(c *cli.Context, o *workload.Options) error {
	for _, s := range o.Servers.URLs {
		u, err := url.Parse(s)
		if err != nil || kbs.CheckServerURL(s) != nil {
			continue // the build says what is wrong with it
		}
		if isLoopback(u.Hostname()) {
			program.Log(c).Warn("in the guest a loopback address is the guest itself: it will not find its server there", "attest-url", s,
				"next", "give an address or a name at which the guest reaches the server; attest-server certs renew --name adds it to the certificate")
			continue
		}
		if o.Registrar != nil {
			if err := trusted(c, o, u); err != nil {
				return err
			}
		}
	}
	return nil
}

func isLoopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback() || a.IsUnspecified()
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// trusted checks that a guest would take the server at u for its own. What
// cannot be reached from here may well be there for the guest: that is said, and
// no error.
func trusted(c *cli.Context, o *workload.Options, u *url.URL) error {
	pins, err := kbs.ParsePins(o.Servers.PinnedKeys)
	if err != nil {
		return nil // the build asks for pins
	}
	v, err := registrar(c, o.Servers.URLs)
	if err != nil {
		return err
	}
	if own, err := url.Parse(v.server); err == nil {
		if chain, err := lookAt(c.Context, own); err == nil && pins.Verify(chain, u.Hostname()) == nil {
			return nil
		}
	}
	chain, err := lookAt(c.Context, u)
	if err == nil {
		err = pins.Verify(chain, u.Hostname())
	}
	switch {
	case err == nil:
		return nil
	case len(chain) > 0 && !errors.Is(err, kbs.ErrUnpinned): // it is the server, beyond doubt
		return hint.With(fmt.Errorf("--attest-url %s: no guest would trust this server: %w", u, err),
			"`attest-server certs renew --name %s` adds a name to its certificate", u.Hostname())
	}
	program.Log(c).Warn("guests may not trust this server: its host is no name of the certificate of the server that registers, and seen from here it shows no key that guests will trust",
		"attest-url", u.String(), "next", "attest-server certs renew --name "+u.Hostname())
	return nil
}

func lookAt(ctx context.Context, u *url.URL) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, preflightPatience)
	defer cancel()
	return presented(ctx, u)
}
