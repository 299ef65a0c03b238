package tdx

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tdx-guest/pcs"

	"github.com/ccrun/ccrun/attest-server/verifier"
)

// platformShort is what the platform lacks of the first level that Intel calls
// UpToDate. Of a platform that lacks nothing of it the configuration is to
// blame, which no component tells.
func platformShort(levels []pcs.TcbLevel, tee verifier.Hex, tcb pcs.PckCertTCB) (short []string) {
	i := slices.IndexFunc(levels, func(l pcs.TcbLevel) bool { return string(l.TcbStatus) == verifier.UpToDate })
	if i < 0 {
		return nil
	}
	want := levels[i].Tcb
	for n, c := range want.SgxTcbcomponents {
		if got := tcb.CPUSvnComponents[n]; got < c.Svn {
			short = append(short, fmt.Sprintf("SGX component %d is %d, needs %d", n+1, got, c.Svn))
		}
	}
	if tcb.PCESvn < want.Pcesvn {
		short = append(short, fmt.Sprintf("PCE SVN is %d, needs %d", tcb.PCESvn, want.Pcesvn))
	}
	first := 0
	if tee[1] > 0 {
		first = 2 // see platformLevel
	}
	for n, c := range want.TdxTcbcomponents {
		if n >= first && tee[n] < c.Svn {
			short = append(short, fmt.Sprintf("TDX component %d is %d, needs %d", n+1, tee[n], c.Svn))
		}
	}
	return short
}

// moduleShort is what the TDX module lacks.
func moduleShort(ids []pcs.TdxModuleIdentity, svn verifier.Hex) []string {
	for _, id := range ids {
		if best := bestEnclave(id.TcbLevels); strings.EqualFold(id.ID, fmt.Sprintf("TDX_%02x", svn[1])) && uint32(svn[0]) < best {
			return []string{fmt.Sprintf("TDX module SVN is %d, needs %d", svn[0], best)}
		}
	}
	return nil
}

// bestEnclave is the ISVSVN of the first level that is UpToDate; 0 if none is.
func bestEnclave(levels []pcs.TcbLevel) uint32 {
	for _, l := range levels {
		if string(l.TcbStatus) == verifier.UpToDate {
			return l.Tcb.Isvsvn
		}
	}
	return 0
}
