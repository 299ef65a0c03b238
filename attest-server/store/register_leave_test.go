package store

import (
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestRegisterAuditsLeave: which advisories a registration accepts is in the
// audit log, and no more of it than is bounded.
func TestRegisterAuditsLeave(t *testing.T) {
	s, _, _ := newStore(t)
	for id, x := range map[string]struct {
		rules *kbs.SNPRules
		want  string
	}{
		"none": {nil, ""},
		"some": {&kbs.SNPRules{AllowAdvisories: []string{"AMD-SB-3030=2027-01-31", "AMD-SB-3027"}}, ", accepts open: AMD-SB-3030=2027-01-31, AMD-SB-3027"},
		"many": {&kbs.SNPRules{AllowAdvisories: strings.Fields(strings.Repeat("AMD-SB-3030 ", 100))}, " and more"},
	} {
		reg := registration(id, byte(len(id)+len(x.want)%97))
		reg.ReferenceValues.SNP = x.rules
		mustRegister(t, s, reg, "key of "+id)
		var detail string
		if err := s.Audit(t.Context(), 0, func(e AuditEntry) error {
			if e.Object == id {
				detail = e.Detail
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(detail, "registration ") || !strings.HasSuffix(detail, x.want) || len(detail) > 600 || x.want == "" && strings.Contains(detail, "accepts") {
			t.Errorf("%s: %q", id, detail)
		}
	}
}
