package attestserver

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TestDeniedEvidence: what a denied guest showed is kept as it came, for who owns
// its workload and for nobody else; of granted ones nothing is.
func TestDeniedEvidence(t *testing.T) {
	r := newRig(t)
	acme, evil := r.tenant("acme", store.Admin), r.tenant("evil", store.Admin)
	r.register("w1", 1)
	if _, err := acme.Register(t.Context(), request("acme.w", 2)); err != nil {
		t.Fatal(err)
	}
	denied := func(id string) (string, []byte) {
		t.Helper()
		c, q := r.guest(id, 9)
		var showed []byte
		attest := q.Attest
		q.Attest = func(ctx context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
			e, err := attest(ctx, rd)
			showed = e.Report
			return e, err
		}
		var p *kbs.ProblemError
		if _, err := c.Release(t.Context(), q); !errors.As(err, &p) || p.Session == "" {
			t.Fatalf("%v", err)
		}
		return p.Session, showed
	}
	own, showed := denied("w1")
	theirs, showedThem := denied("acme.w")
	for name, x := range map[string]struct {
		by      kbs.AdminClient
		session string
		want    []byte
		code    string
	}{
		"the operator's own":          {r.admin, own, showed, ""},
		"the tenant's own":            {acme, theirs, showedThem, ""},
		"a tenant's, to the operator": {r.admin, theirs, nil, kbs.CodeForbidden},
		"a tenant's, to another":      {evil, theirs, nil, kbs.CodeNotFound},
		"the operator's, to a tenant": {evil, own, nil, kbs.CodeNotFound},
		"of a session that never was": {r.admin, "0000000000000000", nil, kbs.CodeNotFound},
	} {
		e, err := x.by.SessionEvidence(t.Context(), x.session)
		var p *kbs.ProblemError
		switch {
		case x.code == "" && (err != nil || !bytes.Equal(e.Evidence, x.want) || e.TEE != kbs.Sample):
			t.Errorf("%s: %+v, %v", name, e, err)
		case x.code != "" && (!errors.As(err, &p) || p.Code != x.code):
			t.Errorf("%s: %v, expected %s", name, err, x.code)
		}
	}
}
