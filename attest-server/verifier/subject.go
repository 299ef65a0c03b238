package verifier

import (
	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Subject is what Endorsements are fetched for: a chip's key at one TCB, a
// product line (no chip id), or an Intel platform.
type Subject struct {
	Product string // AMD product line
	Signer  string // VCEK or VLEK
	ChipID  Hex    // 64 bytes, Turin 8
	TCB     kbs.SNPTCB
	FMSPC   string // Intel: 12 hex digits
	CA      string // Intel: platform or processor
}

// Subjects is what must be at hand to verify the Evidence; several where a
// report of version 2 does not say of which product line it is. Nothing of it
// is authentic: the Endorsements will tell.
func (p *Parsed) Subjects() ([]Subject, error) {
	if p.Evidence.TEE == kbs.TDX {
		q, err := parseTDQuote(p.Evidence.Report)
		if err != nil {
			return nil, err
		}
		root, err := intelRoot()
		if err != nil {
			return nil, err
		}
		pck, err := checkPCKChain(q.pckChain, root)
		if err != nil {
			return nil, err
		}
		return []Subject{{FMSPC: pck.ext.FMSPC, CA: pck.caName()}}, nil
	}
	r, err := parseSNPReport(p.Evidence.Report)
	if err != nil {
		return nil, err
	}
	v, err := NewSNP(SNPOptions{})
	if err != nil {
		return nil, err
	}
	lines, err := v.linesFor(r)
	if err != nil {
		return nil, err
	}
	var all []Subject
	for _, l := range lines {
		s := Subject{Product: l.Name, Signer: r.signer}
		// Not every TCB can be one of every line's.
		if s.TCB, err = decodeTCB(r.msg.ReportedTcb, l.FMC); err != nil {
			continue
		}
		if !r.chipIDIsZero() {
			s.ChipID = hwid(r.msg.ChipId, l.FMC)
		}
		all = append(all, s)
	}
	return all, nil
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
			all = append(all, Subject{Product: e.Product})
		}
	}
	return all
}
