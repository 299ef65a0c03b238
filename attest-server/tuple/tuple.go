// Package tuple says what in Evidence tells one workload from another: besides
// the launch digest, HOST_DATA of an SNP guest, MRCONFIGID and RTMRs of a TD,
// PCRs of a vTPM. A firmware's, paravisor's or guest image's launch digest is
// that of many workloads; the whole tuple is that of one.
package tuple

import (
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Tuple is all but the launch digest: what a registration asks for, or what
// Evidence shows. The zero value is nobody's.
type Tuple struct {
	kind   string            // which places there are
	values map[string]string // by place, named as the rule that compares it
}

// Kinds of guests. One of a kind never satisfies what is asked of another.
const (
	snp, tdx = "snp", "tdx"
	withVTPM = "+vtpm"
)

// bootPCR is asked of every guest with a vTPM.
const bootPCR = "pcr4"

const (
	hostDataBytes = 32
	registerBytes = 48
	pcrBytes      = 32
)

// Of is what a registration asks for. An empty HOST_DATA, MRCONFIGID or RTMR 3
// stands for zeros, as in an appraisal.
func Of(ref kbs.ReferenceValues) (Tuple, error) {
	t := Tuple{kind: snp, values: map[string]string{}}
	var err error
	put := func(place, digits string, size int) {
		b, bad := hex.DecodeString(digits)
		switch {
		case digits == "":
			b = make([]byte, size)
		case bad != nil || len(b) != size:
			err = fmt.Errorf("%s %q, expected %d hex digits", place, digits, 2*size)
		}
		t.values[place] = string(b)
	}
	if ref.TEE == kbs.TDX {
		rules := kbs.TDXRules{}
		if ref.TDX != nil {
			rules = *ref.TDX
		}
		t.kind = tdx
		put("mr_config_id", rules.MRConfigID, registerBytes)
		for n := range 4 {
			put("rtmr"+strconv.Itoa(n), rules.RTMRs[strconv.Itoa(n)], registerBytes)
		}
	} else {
		rules := kbs.SNPRules{}
		if ref.SNP != nil {
			rules = *ref.SNP
		}
		put("host_data", rules.HostData, hostDataBytes)
	}
	if ref.VTPM != nil {
		t.kind += withVTPM
		for n, digits := range ref.VTPM.PCRs {
			put("pcr"+n, digits, pcrBytes)
		}
	}
	if err != nil {
		return Tuple{}, fmt.Errorf("reading what tells the workload from others: %w", err)
	}
	return t, nil
}

// OfSNP is what an SNP guest shows; pcrs are nil without a vTPM.
func OfSNP(hostData []byte, pcrs [][]byte) Tuple {
	t := Tuple{kind: snp, values: map[string]string{"host_data": string(hostData)}}
	return t.withPCRs(pcrs)
}

// OfTDX is what a TD shows; pcrs are nil without a vTPM.
func OfTDX(mrConfigID []byte, rtmrs [4][]byte, pcrs [][]byte) Tuple {
	t := Tuple{kind: tdx, values: map[string]string{"mr_config_id": string(mrConfigID)}}
	for n, r := range rtmrs {
		t.values["rtmr"+strconv.Itoa(n)] = string(r)
	}
	return t.withPCRs(pcrs)
}

func (t Tuple) withPCRs(pcrs [][]byte) Tuple {
	if pcrs != nil {
		t.kind += withVTPM
	}
	for n, p := range pcrs {
		t.values["pcr"+strconv.Itoa(n)] = string(p)
	}
	return t
}

// Fixed is a digest of what every Evidence and every registration of the kind
// has a value for: all but the PCRs other than 4. Where two differ in it, no
// Evidence satisfies both.
func (t Tuple) Fixed() kbs.Digest {
	h := sha512.New384()
	frame := func(s string) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	frame(t.kind)
	for _, place := range slices.Sorted(maps.Keys(t.values)) {
		if len(place) > 3 && place[:3] == "pcr" && place != bootPCR {
			continue
		}
		frame(place)
		frame(t.values[place])
	}
	return kbs.Digest(h.Sum(nil))
}

// Overlaps says whether one Evidence could satisfy both: it has one value in
// each place, so both agree wherever both ask.
func (t Tuple) Overlaps(o Tuple) bool {
	if t.kind != o.kind {
		return false
	}
	for place, v := range t.values {
		if w, ok := o.values[place]; ok && v != w {
			return false
		}
	}
	return true
}

// Differs names the places in which Evidence shows something else than t asks
// for, sorted. None: t is satisfied.
func (t Tuple) Differs(shown Tuple) []string {
	if t.kind == "" || t.kind != shown.kind {
		return append(slices.Sorted(maps.Keys(t.values)), "kind")
	}
	var bad []string
	for _, place := range slices.Sorted(maps.Keys(t.values)) {
		if v, ok := shown.values[place]; !ok || v != t.values[place] {
			bad = append(bad, place)
		}
	}
	return bad
}
