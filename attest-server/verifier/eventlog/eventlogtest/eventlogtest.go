// Package eventlogtest writes event logs for tests.
package eventlogtest

import (
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

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

//go:embed real.txt
var real string

// Real is registers, types and digests of the log of a TD on Google's cloud
// (google/go-eventlog v0.0.2, testdata/eventlogs/ccel/cos-113-intel-tdx.bin).
func Real(t testing.TB) []eventlog.Event {
	t.Helper()
	var all []eventlog.Event
	for line := range strings.Lines(real) {
		var e eventlog.Event
		var d string
		if _, err := fmt.Sscanf(line, "%d %v %s", &e.Register, (*uint32)(&e.Type), &d); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if n, err := hex.Decode(e.Digest[:], []byte(d)); err != nil || n != len(e.Digest) {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}
