package admin

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// ClientCertificate lets the holder of a client certificate do without a token.
// The TLS listener has to verify certificates; it alone knows the CA.
type ClientCertificate struct {
	// Subject is the certificate's, as RFC 2253 writes it: "CN=ci,O=ACME".
	Subject string
	Role    store.Role
	Tenant  string // empty: the operator's
}

// checkClients refuses entries that could match what they should not.
func checkClients(list []ClientCertificate) error {
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

// SetClients puts list in the place of the certificates accepted so far, from
// the next request on.
func (g *Gate) SetClients(list []ClientCertificate) error {
	use, err := g.PrepareClients(list)
	if err == nil {
		use()
	}
	return err
}

// PrepareClients is SetClients in two steps, of which the second cannot fail.
func (g *Gate) PrepareClients(list []ClientCertificate) (use func(), err error) {
	if err := checkClients(list); err != nil {
		return nil, err
	}
	return func() { g.clients.Store(&list) }, nil
}

func (g *Gate) accepted() []ClientCertificate {
	if list := g.clients.Load(); list != nil {
		return *list
	}
	return nil
}

// clientToken is what a verified client certificate stands for. A connection
// may outlive its certificate, so the time is compared again.
func (g *Gate) clientToken(r *http.Request) (store.Token, bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return store.Token{}, false
	}
	leaf := r.TLS.VerifiedChains[0][0]
	if now := g.Clock(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return store.Token{}, false
	}
	for _, c := range g.accepted() {
		if c.Subject == leaf.Subject.String() {
			return store.Token{ID: clientActor + c.Subject, Role: c.Role, Tenant: c.Tenant}, true
		}
	}
	return store.Token{}, false
}
