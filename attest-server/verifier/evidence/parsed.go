package evidence

import (
	"context"
	"errors"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
)

// Parsed is Evidence read from one of the shapes it is met in.
type Parsed struct {
	Evidence kbs.Evidence
	Shape    string // e.g. "raw snp", "coco tdx", "az-snp-vtpm"
	vtpm     *vtpmQuote
	eventLog []byte // nil: none came along
}

// Verify has v verify the Evidence, and where a vTPM stands between guest and
// TEE, binds its quote to the TEE's report as well. An event log is replayed
// into the claims; Appraise holds it against the quote.
func (p *Parsed) Verify(ctx context.Context, v verifier.Verifier, at time.Time) (*verifier.Claims, error) {
	c, err := v.Verify(ctx, p.Evidence, at)
	if err != nil {
		return nil, err
	}
	if p.eventLog != nil {
		if err := replay(p.eventLog, c); err != nil {
			return nil, err
		}
	}
	if p.vtpm == nil {
		return c, nil
	}
	return c, p.vtpm.bind(c)
}

// Certificates is the VCEK and VLEK certificates that came with the Evidence.
func (p *Parsed) Certificates() ([][]byte, error) {
	return snp.CertTable(p.Evidence.Certificates, verifier.VCEK, verifier.VLEK)
}

// AddEventLog adds the data of the ACPI table CCEL, of at most
// eventlog.MaxLogBytes, to a TD's Evidence without one. A log that cannot be
// read is no error here: rule event_log refuses it.
func (p *Parsed) AddEventLog(b []byte) error {
	if p.Evidence.TEE != kbs.TDX || p.eventLog != nil {
		return errors.New("event log for evidence that is no TD's, or has one: expected a quote alone")
	}
	p.eventLog = append([]byte{}, b...) // not nil, even if empty
	return nil
}
