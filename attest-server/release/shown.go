package release

import (
	"github.com/ccrun/ccrun/attest-server/tuple"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// shown is what of a guest's claims tells it from those with its launch digest.
func shown(c *verifier.Claims) tuple.Tuple {
	var pcrs [][]byte
	if c.VTPM != nil {
		pcrs = make([][]byte, len(c.VTPM.PCRs))
		for i, p := range c.VTPM.PCRs {
			pcrs[i] = p
		}
	}
	switch {
	case c.SNP != nil && c.TDX == nil:
		return tuple.OfSNP(c.SNP.HostData, pcrs)
	case c.TDX != nil && c.SNP == nil:
		var rtmrs [4][]byte
		for i, r := range c.TDX.RTMRs {
			rtmrs[i] = r
		}
		return tuple.OfTDX(c.TDX.MRConfigID, rtmrs, pcrs)
	}
	return tuple.Tuple{}
}
