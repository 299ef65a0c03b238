package cdh

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// snpReportBytes is the size of ATTESTATION_REPORT (56860, table 23).
const snpReportBytes = 1184

// cocoEvidence is Evidence as CoCo's attesters write it.
func cocoEvidence(e kbs.Evidence) (any, error) {
	switch e.TEE {
	case kbs.TDX:
		return map[string]any{"quote": base64.StdEncoding.EncodeToString(e.Report), "cc_eventlog": nil}, nil
	case kbs.SNP, kbs.Sample:
		if len(e.Report) != snpReportBytes {
			return nil, fmt.Errorf("report of %d bytes, expected %d", len(e.Report), snpReportBytes)
		}
		return map[string]any{"attestation_report": cocoReport(e.Report), "cert_chain": cocoCertificates(e.Certificates)}, nil
	}
	return nil, fmt.Errorf("evidence of TEE %q", e.TEE)
}

// numbers are bytes as the Rust sev crate (6.x) writes them.
type numbers []byte

// MarshalJSON implements json.Marshaler.
func (n numbers) MarshalJSON() ([]byte, error) {
	list := make([]int, len(n))
	for i, b := range n {
		list[i] = int(b)
	}
	return json.Marshal(list)
}

// cocoReport is a report's fields under that crate's names. What a report of its
// version has not is null.
func cocoReport(r []byte) map[string]any {
	le := binary.LittleEndian
	version := le.Uint32(r)
	optional := func(since uint32, v any) any {
		if version < since {
			return nil
		}
		return v
	}
	turin := version >= 3 && r[0x188] >= 0x1a
	tcb := func(at int) any { return cocoTCB(r[at:at+8], turin) }
	firmware := func(at int) any {
		return map[string]any{"build": r[at], "minor": r[at+1], "major": r[at+2]}
	}
	return map[string]any{
		"version": version, "guest_svn": le.Uint32(r[4:]), "policy": le.Uint64(r[8:]),
		"family_id": numbers(r[0x10:0x20]), "image_id": numbers(r[0x20:0x30]), "vmpl": le.Uint32(r[0x30:]), "sig_algo": le.Uint32(r[0x34:]),
		"current_tcb": tcb(0x38), "plat_info": le.Uint64(r[0x40:]), "key_info": le.Uint32(r[0x48:]),
		"report_data": numbers(r[0x50:0x90]), "measurement": numbers(r[0x90:0xc0]), "host_data": numbers(r[0xc0:0xe0]),
		"id_key_digest": numbers(r[0xe0:0x110]), "author_key_digest": numbers(r[0x110:0x140]),
		"report_id": numbers(r[0x140:0x160]), "report_id_ma": numbers(r[0x160:0x180]), "reported_tcb": tcb(0x180),
		"cpuid_fam_id": optional(3, r[0x188]), "cpuid_mod_id": optional(3, r[0x189]), "cpuid_step": optional(3, r[0x18a]),
		"chip_id": numbers(r[0x1a0:0x1e0]), "committed_tcb": tcb(0x1e0), "current": firmware(0x1e8), "committed": firmware(0x1ec), "launch_tcb": tcb(0x1f0),
		"launch_mit_vector": optional(5, le.Uint64(r[0x1f8:])), "current_mit_vector": optional(5, le.Uint64(r[0x200:])),
		"signature": map[string]any{"r": numbers(r[0x2a0:0x2e8]), "s": numbers(r[0x2e8:0x330])},
	}
}

// cocoTCB is a TCB_VERSION, whose places are others from Turin on.
func cocoTCB(b []byte, turin bool) map[string]any {
	if turin {
		return map[string]any{"fmc": b[0], "bootloader": b[1], "tee": b[2], "snp": b[3], "microcode": b[7]}
	}
	return map[string]any{"fmc": nil, "bootloader": b[0], "tee": b[1], "snp": b[6], "microcode": b[7]}
}

// cocoCertificates are the entries of a GHCB certificate table whose place is
// right; nil if there are none.
func cocoCertificates(table []byte) []map[string]any {
	const entry = 24
	kinds := map[string]string{
		"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd": "VCEK",
		"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1": "VLEK",
		"\x8d\x75\xda\x63\x64\xe6\x64\x45\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd": "VCEK",
		"\xc2\x4b\x07\xa8\x5a\xa2\x3e\x48\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1": "VLEK",
	}
	var chain []map[string]any
	for at := 0; at+entry <= len(table); at += entry {
		kind, known := kinds[string(table[at:at+16])]
		first := uint64(binary.LittleEndian.Uint32(table[at+16:]))
		stop := first + uint64(binary.LittleEndian.Uint32(table[at+20:]))
		if !known || stop > uint64(len(table)) {
			break
		}
		chain = append(chain, map[string]any{"cert_type": kind, "data": numbers(table[first:stop])})
	}
	return chain
}
