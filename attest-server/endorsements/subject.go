package endorsements

import (
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// Subject is what Endorsements are fetched for: a key of AMD's, a product line
// (no chip id), or an Intel platform.
type Subject struct {
	snp.EndorsementKey        // AMD
	FMSPC              string // Intel: 12 hex digits
	CA                 string // Intel: platform or processor
}

// Concerns says whether e is for the Subject's platform or product line.
func (s Subject) Concerns(e *Endorsement) bool {
	if s.FMSPC != "" {
		return e.fmspc == strings.ToLower(s.FMSPC) && e.ca == s.CA
	}
	return e.fmspc == "" && e.Product == s.Product
}

// Subjects is what must be at hand to verify the Evidence. Nothing of it is
// authentic: the Endorsements will tell.
func Subjects(ev kbs.Evidence) ([]Subject, error) {
	if ev.TEE == kbs.TDX {
		fmspc, ca, err := tdx.PlatformOf(ev.Report)
		if err != nil {
			return nil, err
		}
		return []Subject{{FMSPC: fmspc, CA: ca}}, nil
	}
	keys, err := snp.KeysOf(ev.Report)
	var all []Subject
	for _, k := range keys {
		all = append(all, Subject{EndorsementKey: k})
	}
	return all, err
}

// Known is the Subjects of which the cache holds something that expires:
// product lines and Intel platforms.
func (c *Cache) Known() []Subject {
	var all []Subject
	lines := map[string]bool{}
	for _, e := range c.List() {
		switch {
		case e.Kind == KindCollateral:
			all = append(all, Subject{FMSPC: e.fmspc, CA: e.ca})
		case !lines[e.Product]:
			lines[e.Product] = true
			all = append(all, Subject{EndorsementKey: snp.EndorsementKey{Product: e.Product}})
		}
	}
	return all
}
