package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// ClientCertificate lets the holder of a client certificate do without a token.
// The TLS listener has to verify certificates; it alone knows the CA.
type ClientCertificate struct {
	// Subject is the certificate's, as RFC 2253 writes it: "CN=ci,O=ACME".
	Subject string
	Role    store.Role
	Tenant  string // empty: the operator's
	// TenantMade is the store's, of the tenant that is meant. A later one of that
	// name is another, and has to be meant anew. Zero: none is.
	TenantMade int64
}

// acceptedClients are those that count now.
type acceptedClients struct {
	list  []ClientCertificate
	roots *x509.CertPool
}

// checkClients refuses entries that could match what they should not.
func checkClients(list []ClientCertificate, roots *x509.CertPool) error {
	if len(list) > 0 && roots == nil {
		return errors.New("client certificates without a CA that vouches for them")
	}
	seen := map[string]bool{}
	for _, c := range list {
		switch {
		case c.Subject == "":
			return errors.New("client certificate without a subject")
		case seen[c.Subject]:
			return fmt.Errorf("client certificate %s appears twice", c.Subject)
		case !c.Role.Valid():
			return fmt.Errorf("client certificate %s with role %q, expected admin, publisher or auditor", c.Subject, c.Role)
		case c.Tenant != "" && !kbs.ValidTenant(c.Tenant):
			return fmt.Errorf("client certificate %s: %q is no tenant's name", c.Subject, c.Tenant)
		}
		seen[c.Subject] = true
	}
	return nil
}

const clientActor = "client/"

// SetClients puts list, under the CAs roots, in the place of the certificates
// accepted so far, from the next request on.
func (g *Gate) SetClients(list []ClientCertificate, roots *x509.CertPool) error {
	use, err := g.PrepareClients(list, roots)
	if err == nil {
		use()
	}
	return err
}

// PrepareClients is SetClients in two steps, of which the second cannot fail.
func (g *Gate) PrepareClients(list []ClientCertificate, roots *x509.CertPool) (use func(), err error) {
	if err := checkClients(list, roots); err != nil {
		return nil, err
	}
	return func() { g.clients.Store(&acceptedClients{list, roots}) }, nil
}

// clientToken is what a verified client certificate stands for. A connection
// may outlive its certificate, or its CA's place in the configuration, so both
// are looked at again.
func (g *Gate) clientToken(r *http.Request) (store.Token, error) {
	c, ok := g.client(r)
	if !ok {
		return store.Token{}, refusal.New(kbs.CodeUnauthorized, "no token: send Authorization: Bearer TOKEN")
	}
	return store.Token{ID: clientActor + c.Subject, Role: c.Role, Tenant: c.Tenant}, g.needTenant(r.Context(), c)
}

func (g *Gate) client(r *http.Request) (ClientCertificate, bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 || len(r.TLS.PeerCertificates) == 0 {
		return ClientCertificate{}, false
	}
	leaf := r.TLS.PeerCertificates[0]
	accepted := g.clients.Load()
	if accepted == nil {
		return ClientCertificate{}, false
	}
	for _, c := range accepted.list {
		if c.Subject == leaf.Subject.String() && vouched(accepted.roots, r.TLS.PeerCertificates, g.Clock()) {
			return c, true
		}
	}
	return ClientCertificate{}, false
}

// needTenant refuses a certificate that the configuration gives to a tenant that
// is not there: nothing would bound it, and a later tenant of that name would
// find what it left, or it what is the later one's. A token's tenant was there
// when it was made, and is revoked with it.
func (g *Gate) needTenant(ctx context.Context, c ClientCertificate) error {
	if c.Tenant == "" {
		return nil
	}
	made, err := g.Tokens.TenantMade(ctx, c.Tenant)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refusal.New(kbs.CodeForbidden, "the configuration gives this certificate to tenant %s, which does not exist", c.Tenant)
	case err != nil:
		return err
	case made != c.TenantMade:
		return refusal.New(kbs.CodeForbidden, "tenant %s was made after the server read its configuration: if this certificate is of the new one, have the server read it again", c.Tenant)
	}
	return nil
}

// vouched says whether roots vouch for the first of the peer's certificates,
// with the help of the rest.
func vouched(roots *x509.CertPool, peer []*x509.Certificate, now time.Time) bool {
	between := x509.NewCertPool()
	for _, c := range peer[1:] {
		between.AddCert(c)
	}
	_, err := peer[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}
