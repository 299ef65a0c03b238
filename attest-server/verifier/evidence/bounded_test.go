package evidence

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
)

// TestEvidenceBounded: evidence of the largest size that is read, made to cost
// as much as it can, is refused within bounds of memory and time; anything
// larger costs nothing.
func TestEvidenceBounded(t *testing.T) {
	fill := func(head, part, tail string, size int) []byte {
		return []byte(head + strings.Repeat(part, (size-len(head)-len(tail))/len(part)) + tail)
	}
	var members bytes.Buffer
	members.WriteString(`{"a":0`)
	for i := 0; members.Len() < MaxBytes-20; i++ {
		fmt.Fprintf(&members, `,"%x":0`, i)
	}
	members.WriteString("}")
	for name, b := range map[string][]byte{
		"members":        members.Bytes(),
		"certificates":   fill(`{"attestation_report":{},"cert_chain":[{}`, `,{}`, `]}`, MaxBytes),
		"numbers":        fill(`{"attestation_report":{"chip_id":[0`, `,0`, `]}}`, MaxBytes),
		"PCRs":           fill(`{"version":2,"hcl_report":"","tpm_quote":{"pcrs":[""`, `,""`, `]}}`, MaxBytes),
		"PCRs version 0": fill(`{"report":[],"vcek":"","quote":{"pcrs":[[]`, `,[]`, `]}}`, MaxBytes),
		"nesting":        bytes.Repeat([]byte(`{"quote":`), MaxBytes/9),
		"arrays":         bytes.Repeat([]byte(`[`), MaxBytes),
		"quote":          fill(`{"quote":"`, "AAAA", `"}`, MaxBytes),
		"64 MiB":         fill(`{"quote":"`, "AAAA", `"}`, 64<<20),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		p, err := Parse(b)
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d KiB in %v", name, allocated>>10, took)
		if err == nil && name != "quote" {
			t.Errorf("%s: read as %s", name, p.Shape)
		}
		limit := uint64(48 << 20)
		if len(b) > MaxBytes {
			limit = 64 << 10
		}
		if allocated > limit {
			t.Errorf("%s: %d bytes of evidence allocate %d, at most %d expected", name, len(b), allocated, limit)
		}
		if took > time.Minute {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

// TestEventLogBounded is TestEvidenceBounded for event logs: the most events
// that fit keep little.
func TestEventLogBounded(t *testing.T) {
	log := make([]byte, eventlog.MaxLogBytes+1)
	if _, err := eventlog.Parse(log); err == nil {
		t.Error("a log that is too large is read")
	}
	b := []byte(`{"quote":"` + base64.StdEncoding.EncodeToString([]byte{4, 0}) + `","cc_eventlog":"` + base64.StdEncoding.EncodeToString(log[1:]) + `"}`)
	if len(b) > MaxBytes {
		t.Errorf("a quote and a log of %d bytes make evidence of %d, more than the %d that are read", len(log)-1, len(b), MaxBytes)
	}
	if _, err := Parse(b); err != nil {
		t.Error(err)
	}
}
