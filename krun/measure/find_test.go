package measure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func TestFindNamesWhatDiffers(t *testing.T) {
	in := testInputs()
	other := in
	other.Initrd = noise(9, 4096)
	variants := []Variant{{Inputs: in}, {Name: "initrd", Inputs: other}}
	profiles := []Profile{Libkrun116, Libkrun112, KrunfwTool}
	asked := Shape{2, 1000}
	for _, c := range []struct {
		in    Inputs
		p     Profile
		s     Shape
		wants []string
	}{
		{in, Libkrun116, asked, []string{}},
		{in, Libkrun112, asked, []string{"profile"}},
		{in, Libkrun116, Shape{3, 1000}, []string{"cpus"}},
		{in, Libkrun116, Shape{2, 4096}, []string{"memory"}},
		{other, Libkrun116, asked, []string{"initrd"}},
		{other, KrunfwTool, Shape{8, 3328}, []string{"initrd", "profile", "cpus", "memory"}},
	} {
		r, err := Launch(c.p, c.in, c.s)
		if err != nil {
			t.Fatal(err)
		}
		m := Find(r.Digest, profiles, asked, variants)
		if m == nil || !slices.Equal(m.Differs, c.wants) {
			t.Errorf("%s %+v: %+v, want %v", c.p, c.s, m, c.wants)
		}
	}
	in.Kernel = noise(7, 4096)
	r, _ := Launch(Libkrun116, in, asked)
	if m := Find(r.Digest, profiles, asked, variants); m != nil {
		t.Errorf("another kernel was found as %+v", m)
	}
}

func TestReadEvidence(t *testing.T) {
	report := make([]byte, snpReportBytes)
	report[0x90], report[0xbf] = 1, 2
	tee, d, err := ReadEvidence(report)
	if err != nil || tee != kbs.SNP || d[0] != 1 || d[47] != 2 {
		t.Errorf("report: %v %v %v", tee, d, err)
	}
	for _, bad := range [][]byte{nil, report[:1183], make([]byte, 4096), make([]byte, 2<<20), []byte("{}"), []byte(`{"quote":"AAAA"}`),
		[]byte(`{"attestation_report":{"measurement":[1]}}`), []byte(`{"attestation_report":{"measurement":[` + strings.Repeat("256,", 47) + `0]}}`)} {
		if _, _, err := ReadEvidence(bad); err == nil {
			t.Errorf("%d bytes accepted", len(bad))
		}
	}
	quote := make([]byte, 1000)
	binary.LittleEndian.PutUint32(quote[4:], teeTypeTDX)
	if _, _, err := ReadEvidence(quote); err == nil || errors.Is(err, ErrNotEvidence) {
		t.Errorf("quote of version 0: %v", err)
	}
}

// TestReadEvidenceVectors reads each kind of real Evidence in both its forms.
func TestReadEvidenceVectors(t *testing.T) {
	shared := os.Getenv("CCRUN_SHARED")
	if shared == "" {
		shared = "../../../shared"
	}
	index, err := os.ReadFile(filepath.Join(shared, "vectors", "INDEX.md"))
	if err != nil {
		t.Skip("no shared vectors: ", err)
	}
	raws, _ := filepath.Glob(filepath.Join(shared, "vectors/evidence/*.bin"))
	if len(raws) == 0 {
		t.Fatal("no vectors beside INDEX.md")
	}
	for _, raw := range raws {
		b, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, d, err := ReadEvidence(b)
		if err != nil || !bytes.Contains(index, []byte(d.String())) {
			t.Errorf("%s: %v (%v) is not in the index", raw, d, err)
		}
		name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(raw, ".bin"), ".report"), ".quote")
		b, err = os.ReadFile(name + ".coco-evidence.json")
		if err != nil {
			t.Fatal(err)
		}
		if _, again, err := ReadEvidence(b); err != nil || again != d {
			t.Errorf("%s: JSON has %v (%v), binary %v", name, again, err, d)
		}
	}
}

func FuzzReadEvidence(f *testing.F) {
	f.Add(make([]byte, snpReportBytes))
	f.Add([]byte(`{"quote":"AAAA"}`))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _, _ = ReadEvidence(b) })
}
