package measure

import (
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
)

// Series measures many initrds on one firmware. They differ at the end, where
// the identities are: what is as it was in the one before is not hashed again.
// It is for one goroutine.
type Series struct {
	tee    kbs.TEE
	fw     *firmware.Bundle
	boot   []byte // the room of the initrd before
	before pageSeries
}

// NewSeries begins a series.
func NewSeries(tee kbs.TEE, fw *firmware.Bundle) *Series {
	return &Series{tee: tee, fw: fw, before: pageSeries{initrd: pageMemo{keeps: true}}}
}

// Registered is the function Registered of one more initrd, which it does not keep.
func (m *Series) Registered(initrd []byte, s Shape, allowACPI bool) ([]kbs.Measurement, error) {
	boot, err := m.fw.AppendBootInitrd(m.boot[:0], initrd)
	if err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	m.boot = boot
	in, err := inputs(m.fw, boot)
	if err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	return registered(m.tee, m.fw, in, s, allowACPI, &m.before)
}
