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

func sharedDir() string {
	if dir := os.Getenv("CCRUN_SHARED"); dir != "" {
		return dir
	}
	return "../../../shared"
}

// TestReadEvidenceVectors reads each kind of real Evidence in both its forms.
func TestReadEvidenceVectors(t *testing.T) {
	shared := sharedDir()
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
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _, _ = ReadEvidence(b)
		_, _ = ReadRTMRs(b)
	})
}

// TestReadRTMRs: the registers as another reader listed them.
func TestReadRTMRs(t *testing.T) {
	for name, want := range map[string][4]string{
		"tdx-v4.quote.bin": {"44c0197b39157fdd7a4dcc44767f9d6b0bb3977c7a8e347b8492f827fe9d9e5c48aca29b220b80b6a540cf994b9bc9c0",
			"0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7aea8c323c173019b3093d54e579e9378",
			"d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3ba80b70870d7330733642e01d48c3132", strings.Repeat("0", 96)},
		"tdx-v4.coco-evidence.json": {"44c0197b39157fdd7a4dcc44767f9d6b0bb3977c7a8e347b8492f827fe9d9e5c48aca29b220b80b6a540cf994b9bc9c0",
			"0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7aea8c323c173019b3093d54e579e9378",
			"d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3ba80b70870d7330733642e01d48c3132", strings.Repeat("0", 96)},
		"tdx-v5-tdx15.quote.bin": {"5c8daf76063a71ac8fcef4067564661fc682ed7944c7a5d21dbbced02f61ceff4ba0678c6aef3bdae8cbc614cec24619",
			"463acaace1b6e97c76e92e41fe312aa66f3fd4dad60ec7acf169859db0343e3d1e591646795cdc80fbc0ca5f7041d253",
			"6369b9c9a3b791ebcbdc5a0bb9536cfb57f50df2b393b33c8b29616d3568baa61f4b59dc6092e31ea8764bcbdfc69f20", strings.Repeat("0", 96)},
	} {
		b, err := os.ReadFile(filepath.Join(sharedDir(), "vectors/evidence", name))
		if errors.Is(err, os.ErrNotExist) {
			t.Skip("no shared vectors: ", err)
		}
		regs, err := ReadRTMRs(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i, d := range regs {
			if d.String() != want[i] {
				t.Errorf("%s: RTMR%d %v, want %s", name, i, d, want[i])
			}
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, 642), make([]byte, 2<<20), []byte("{}"), []byte("{")} {
		if _, err := ReadRTMRs(bad); err == nil {
			t.Errorf("%d bytes: read", len(bad))
		}
	}
}
