package tdx

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tdx-guest/pcs"

	"github.com/ccrun/ccrun/attest-server/verifier"
)

// TestShortOfUpToDate: what a machine lacks is named, and nothing else is.
func TestShortOfUpToDate(t *testing.T) {
	all := func(n uint8) []pcs.TcbComponent { return slices.Repeat([]pcs.TcbComponent{{Svn: n}}, 16) }
	levels := []pcs.TcbLevel{
		{TcbStatus: verifier.UpToDate, Tcb: pcs.Tcb{SgxTcbcomponents: all(5), Pcesvn: 13, TdxTcbcomponents: all(3)}},
		{TcbStatus: verifier.OutOfDate, Tcb: pcs.Tcb{SgxTcbcomponents: all(1), Pcesvn: 11, TdxTcbcomponents: all(1)}},
	}
	for _, tt := range []struct {
		sgx, tdx uint8
		version  uint8
		pce      uint16
		want     string
	}{
		{5, 3, 0, 13, "TDX component 2 is 0, needs 3"},
		{5, 3, 1, 13, ""},
		{5, 3, 1, 11, "PCE SVN is 11, needs 13"},
		{4, 3, 1, 13, "SGX component 1 is 4, needs 5"},
		{5, 2, 1, 13, "TDX component 3 is 2, needs 3"},
	} {
		sgx, tee := slices.Repeat([]uint8{5}, 16), verifier.Hex(slices.Repeat([]byte{3}, 16))
		sgx[0], tee[2], tee[1] = tt.sgx, tt.tdx, tt.version
		if got := strings.Join(platformShort(levels, tee, pcs.PckCertTCB{PCESvn: tt.pce, CPUSvnComponents: sgx}), ", "); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	if got := platformShort(levels[1:], make(verifier.Hex, 16), pcs.PckCertTCB{CPUSvnComponents: make([]uint8, 16)}); got != nil {
		t.Errorf("no level is UpToDate: %q", got)
	}
	id := pcs.TdxModuleIdentity{ID: "TDX_01", TcbLevels: []pcs.TcbLevel{{TcbStatus: verifier.UpToDate, Tcb: pcs.Tcb{Isvsvn: 6}}}}
	if got := strings.Join(moduleShort([]pcs.TdxModuleIdentity{id}, verifier.Hex{4, 1}), ""); got != "TDX module SVN is 4, needs 6" {
		t.Error(got)
	}
}
