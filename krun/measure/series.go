package measure

import (
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
)

// Series measures many initrds on one firmware. They differ at the end, where
// the identities are: what is as it was in the one before is not hashed again.
// It is for one goroutine.
type Series struct {
	tee    kbs.TEE
	fw     *firmware.Bundle
	before pageSeries
}

// NewSeries begins a series.
func NewSeries(tee kbs.TEE, fw *firmware.Bundle) *Series { return &Series{tee: tee, fw: fw} }

// Registered is the function Registered of one more initrd.
func (m *Series) Registered(initrd []byte, s Shape, allowACPI bool) ([]kbs.Measurement, error) {
	return registered(m.tee, m.fw, initrd, s, allowACPI, &m.before)
}
