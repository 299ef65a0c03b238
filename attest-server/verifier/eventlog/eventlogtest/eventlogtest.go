// Package eventlogtest writes event logs for tests.
package eventlogtest

import (
	"encoding/binary"

	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
)

// Build writes a log of SHA-384 digests with these events, as firmware does.
func Build(events []eventlog.Event) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = le.AppendUint32(spec, 1)
	spec = append(le.AppendUint16(le.AppendUint16(spec, 0xc), 48), 0)
	b := le.AppendUint32(le.AppendUint32(nil, 1), uint32(eventlog.NoAction))
	b = append(b, make([]byte, 20)...)
	b = append(le.AppendUint32(b, uint32(len(spec))), spec...)
	for _, e := range events {
		b = le.AppendUint32(le.AppendUint32(b, uint32(e.Register+1)), uint32(e.Type))
		b = append(le.AppendUint16(le.AppendUint32(b, 1), 0xc), e.Digest[:]...)
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}
