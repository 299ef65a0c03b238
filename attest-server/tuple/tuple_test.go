package tuple

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func digits(b string, size int) string { return strings.Repeat(b, size) }

func td(rtmr1 string) kbs.ReferenceValues {
	return kbs.ReferenceValues{TEE: kbs.TDX, TDX: &kbs.TDXRules{RTMRs: map[string]string{"0": digits("0a", 48), "1": digits(rtmr1, 48), "2": digits("0c", 48)}}}
}

func azure(pcrs map[string]string) kbs.ReferenceValues {
	return kbs.ReferenceValues{TEE: kbs.SNP, VTPM: &kbs.VTPMRules{PCRs: pcrs}}
}

func must(t *testing.T, ref kbs.ReferenceValues) Tuple {
	t.Helper()
	x, err := Of(ref)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestOverlaps: two registrations overlap if they agree wherever both ask, and
// where they do not, no Fixed says otherwise.
func TestOverlaps(t *testing.T) {
	four, eight, nine := digits("04", 32), digits("08", 32), digits("09", 32)
	pod := func(hostData string) kbs.ReferenceValues {
		return kbs.ReferenceValues{TEE: kbs.SNP, SNP: &kbs.SNPRules{HostData: hostData}}
	}
	config := td("01")
	config.TDX.MRConfigID = digits("11", 48)
	zeros := td("01")
	zeros.TDX.RTMRs["3"], zeros.TDX.MRConfigID = digits("00", 48), digits("00", 48)
	for name, x := range map[string]struct {
		a, b kbs.ReferenceValues
		want bool
	}{
		"the same TD":                {td("01"), td("01"), true},
		"zeros said and unsaid":      {td("01"), zeros, true},
		"other RTMR 1":               {td("01"), td("02"), false},
		"other MRCONFIGID":           {td("01"), config, false},
		"the same pod":               {pod(""), pod(digits("00", 32)), true},
		"upper case":                 {pod(digits("ab", 32)), pod(digits("AB", 32)), true},
		"other init-data":            {pod(digits("01", 32)), pod(digits("02", 32)), false},
		"the same PCRs":              {azure(map[string]string{"4": four}), azure(map[string]string{"4": four}), true},
		"fewer PCRs":                 {azure(map[string]string{"4": four}), azure(map[string]string{"4": four, "8": eight}), true},
		"neither has less":           {azure(map[string]string{"4": four, "8": eight}), azure(map[string]string{"4": four, "9": nine}), true},
		"other PCR 8":                {azure(map[string]string{"4": four, "8": eight}), azure(map[string]string{"4": four, "8": nine}), false},
		"other PCR 4":                {azure(map[string]string{"4": four}), azure(map[string]string{"4": nine}), false},
		"a vTPM and none":            {azure(map[string]string{"4": four}), pod(""), false},
		"SNP and the simulated TEE":  {pod(""), kbs.ReferenceValues{TEE: kbs.Sample}, true},
		"SNP and TDX":                {pod(""), td("01"), false},
		"rules that are no identity": {pod(""), kbs.ReferenceValues{TEE: kbs.SNP, SNP: &kbs.SNPRules{ForbidSMT: true}}, true},
	} {
		a, b := must(t, x.a), must(t, x.b)
		if a.Overlaps(b) != x.want || b.Overlaps(a) != x.want {
			t.Errorf("%s: %v, expected %v", name, a.Overlaps(b), x.want)
		}
		if x.want && a.Fixed() != b.Fixed() {
			t.Errorf("%s: overlap, but would not be compared", name)
		}
	}
}

// TestDiffers: Evidence satisfies exactly what it shows, whole.
func TestDiffers(t *testing.T) {
	fill := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	shown := OfTDX(fill(0, 48), [4][]byte{fill(10, 48), fill(1, 48), fill(12, 48), fill(0, 48)}, nil)
	for name, x := range map[string]struct {
		ref  kbs.ReferenceValues
		want []string
	}{
		"its own":     {td("01"), nil},
		"another's":   {td("02"), []string{"rtmr1"}},
		"SNP's":       {kbs.ReferenceValues{TEE: kbs.SNP}, []string{"host_data", "kind"}},
		"with a vTPM": {kbs.ReferenceValues{TEE: kbs.TDX, TDX: td("01").TDX, VTPM: &kbs.VTPMRules{}}, []string{"mr_config_id", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "kind"}},
	} {
		registered := must(t, x.ref)
		if got := registered.Differs(shown); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, expected %v", name, got, x.want)
		}
		if same := registered.Fixed() == shown.Fixed(); same != (len(x.want) == 0) {
			t.Errorf("%s: Fixed equal: %v", name, same)
		}
	}
	pcrs := [][]byte{fill(0, 32), fill(0, 32), fill(0, 32), fill(0, 32), fill(4, 32)} // a short bank
	guest := OfSNP(fill(0, 32), pcrs)
	few := must(t, azure(map[string]string{"4": digits("04", 32)}))
	more := must(t, azure(map[string]string{"4": digits("04", 32), "8": digits("00", 32)}))
	if d := few.Differs(guest); d != nil {
		t.Errorf("PCR 4 alone: %v", d)
	}
	if d := more.Differs(guest); !slices.Equal(d, []string{"pcr8"}) {
		t.Errorf("a PCR that is not shown: %v", d)
	}
	if few.Fixed() != guest.Fixed() {
		t.Error("the guest would not be looked up")
	}
	if d := (Tuple{}).Differs(Tuple{}); len(d) == 0 {
		t.Error("nothing equals nothing")
	}
}

func TestOfRefuses(t *testing.T) {
	odd := td("01")
	odd.TDX.RTMRs["2"] = "0c"
	for name, ref := range map[string]kbs.ReferenceValues{
		"short RTMR":      odd,
		"HOST_DATA":       {TEE: kbs.SNP, SNP: &kbs.SNPRules{HostData: "zz"}},
		"long HOST_DATA":  {TEE: kbs.SNP, SNP: &kbs.SNPRules{HostData: digits("00", 48)}},
		"PCR of nothing":  azure(map[string]string{"4": "x"}),
		"MRCONFIGID of 1": {TEE: kbs.TDX, TDX: &kbs.TDXRules{MRConfigID: "00"}},
	} {
		if x, err := Of(ref); err == nil || x.kind != "" {
			t.Errorf("%s: %+v", name, x)
		}
	}
}
