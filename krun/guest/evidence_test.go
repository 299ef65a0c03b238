package guest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"
	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/uuid"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// kernelTSM models drivers/virt/coco/tsm.c at the file level: write
// generations, a mandatory inblob of at most 64 bytes, a privilege floor.
type kernelTSM struct {
	provider string
	out, aux []byte
	floor    int
	race     bool // another writer comes between
	fails    error
	inblob   []byte
	level    string
}

func (k *kernelTSM) client() configfsi.Client {
	return &faketsm.Client{Subsystems: map[string]configfsi.Client{"report": &faketsm.ReportSubsystem{
		Random: rand.Reader,
		MakeEntry: func() *faketsm.ReportEntry {
			return &faketsm.ReportEntry{InAttrs: map[string]*faketsm.ReportAttributeState{"inblob": {}, "privlevel": {}}}
		},
		CheckInAttr: k.write, ReadAttr: k.read,
	}}}
}

func (k *kernelTSM) write(_ *faketsm.ReportEntry, attr string, b []byte) error {
	switch {
	case attr == "inblob" && len(b) <= 64:
		k.inblob = bytes.Clone(b)
	case attr == "privlevel" && len(b) == 1 && int(b[0]-'0') >= k.floor && b[0] <= '3':
		k.level = string(b)
	default:
		return syscall.EINVAL
	}
	return nil
}

func (k *kernelTSM) read(e *faketsm.ReportEntry, attr string) ([]byte, error) {
	if k.inblob == nil {
		return nil, syscall.EINVAL
	}
	switch attr {
	case "provider":
		return []byte(k.provider + "\n"), nil
	case "auxblob":
		return k.aux, nil
	case "outblob":
		if k.fails != nil {
			return nil, k.fails
		}
		if k.race {
			e.WriteGeneration++
		}
		return append(bytes.Clone(k.out), k.inblob...), nil
	}
	return nil, os.ErrNotExist
}

func TestTSM(t *testing.T) {
	rd := kbs.ReportData{1, 2, 3}
	for _, c := range []struct {
		name  string
		tee   kbs.TEE
		k     kernelTSM
		fails string
	}{
		{name: "snp", tee: kbs.SNP, k: kernelTSM{provider: "sev_guest", out: []byte("report"), aux: certificateTable(48, 4, []byte("cert"))}},
		{name: "snp without certificates", tee: kbs.SNP, k: kernelTSM{provider: "sev_guest", out: []byte("report")}},
		{name: "tdx", tee: kbs.TDX, k: kernelTSM{provider: "tdx_guest", out: []byte("quote")}},
		{name: "other TEE", tee: kbs.SNP, k: kernelTSM{provider: "tdx_guest"}, fails: `provider "tdx_guest", expected "sev_guest"`},
		{name: "under a paravisor", tee: kbs.SNP, k: kernelTSM{provider: "sev_guest", floor: 1}, fails: "privlevel"},
		{name: "raced", tee: kbs.SNP, k: kernelTSM{provider: "sev_guest", race: true}, fails: "generation"},
		// What the kernel makes of a quote service that is away, slow, or lies about a length.
		{name: "no quote in time", tee: kbs.TDX, k: kernelTSM{provider: "tdx_guest", fails: syscall.ETIMEDOUT}, fails: "timed out"},
		{name: "no quote service", tee: kbs.TDX, k: kernelTSM{provider: "tdx_guest", fails: syscall.EIO}, fails: "input/output error"},
		{name: "a quote longer than its buffer", tee: kbs.TDX, k: kernelTSM{provider: "tdx_guest", fails: syscall.EFBIG}, fails: "too large"},
		{name: "huge", tee: kbs.TDX, k: kernelTSM{provider: "tdx_guest", out: make([]byte, maxEvidence)}, fails: "expected 1 to 65536"},
		{name: "huge certificates", tee: kbs.SNP, k: kernelTSM{provider: "sev_guest", aux: make([]byte, maxEvidence+1)}, fails: "at most 65536"},
	} {
		e, err := tsm{client: c.k.client(), tee: c.tee}.Attest(context.Background(), rd)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: error %v, expected %q", c.name, err, c.fails)
			}
			continue
		}
		want := append(bytes.Clone(c.k.out), rd[:]...)
		if err != nil || e.TEE != c.tee || !bytes.Equal(e.Report, want) || !bytes.Equal(e.Certificates, c.k.aux) {
			t.Errorf("%s: %+v, %v", c.name, e, err)
		}
		if c.tee == kbs.SNP && c.k.level != "0" {
			t.Errorf("%s: asked for VMPL %q", c.name, c.k.level)
		}
	}
}

func frame(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	return b
}

func TestReadFrame(t *testing.T) {
	rep, certs, err := readFrame(bytes.NewReader(frame([]byte("report"), []byte("table"))))
	if err != nil || string(rep) != "report" || string(certs) != "table" {
		t.Errorf("%q, %q, %v", rep, certs, err)
	}
	for name, in := range map[string][]byte{
		"empty":                     nil,
		"short length":              {1, 0},
		"short body":                {2, 0, 0, 0, 1},
		"no table":                  frame([]byte("report")),
		"4 GiB":                     {255, 255, 255, 255},
		"one too many":              frame(make([]byte, maxEvidence+1), nil),
		"one too many in the table": frame(nil, make([]byte, maxEvidence+1)),
	} {
		if _, _, err := readFrame(bytes.NewReader(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Refused for its length, and not because no more came.
	for _, n := range []uint32{maxEvidence + 1, 1 << 31, 1<<32 - 1} {
		_, _, err := readFrame(bytes.NewReader(append(binary.LittleEndian.AppendUint32(nil, n), make([]byte, 64)...)))
		if err == nil || !strings.Contains(err.Error(), "at most") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestReportPortIsClosed: after Close, nobody asks for Evidence here.
func TestReportPortIsClosed(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	d := reportDevice{f: write}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := write.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("writing to a closed port: %v", err)
	}
	if n, err := read.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the other end has %d bytes, %v", n, err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frame([]byte("report"), nil))
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, in []byte) {
		rep, certs, err := readFrame(bytes.NewReader(in))
		if err != nil {
			if rep != nil || certs != nil {
				t.Fatal("data beside an error")
			}
			return
		}
		if again := frame(rep, certs); !bytes.HasPrefix(in, again) {
			t.Fatalf("%x reads as %x", in, again)
		}
	})
}

// certificateTable is a GHCB table with one entry over data.
func certificateTable(offset, length uint32, data []byte) []byte {
	b := bytes.Clone(keyGUIDs[0][:])
	b = binary.LittleEndian.AppendUint32(b, offset)
	b = binary.LittleEndian.AppendUint32(b, length)
	return append(append(b, make([]byte, 24)...), data...)
}

func TestCutCertificates(t *testing.T) {
	good := certificateTable(48, 4, []byte("cert"))
	padded := append(bytes.Clone(good), make([]byte, 1000)...)
	if got := cutCertificates(padded); !bytes.Equal(got, good) {
		t.Errorf("got %x, expected %x", got, good)
	}
	full := abi.CertsFromProto(&spb.CertificateChain{
		ArkCert: []byte("root"), AskCert: []byte("link"), VcekCert: []byte("key of the chip"), VlekCert: []byte("key of the cloud"),
	})
	keys := abi.CertTable{Entries: slices.DeleteFunc(slices.Clone(full.Entries), func(e abi.CertTableEntry) bool {
		return e.GUID.String() != abi.VcekGUID && e.GUID.String() != abi.VlekGUID
	})}
	if got := cutCertificates(full.Marshal()); !bytes.Equal(got, keys.Marshal()) || len(keys.Entries) != 2 {
		t.Errorf("got %x, expected %x", got, keys.Marshal())
	}
	for i, id := range keyGUIDs { // each in both byte orders
		mixed := bytes.Clone(good)
		copy(mixed, id[:])
		if got := cutCertificates(mixed); !bytes.Equal(got, mixed) {
			t.Errorf("GUID %d: got %x, expected %x", i, got, mixed)
		}
	}
	for i, want := range []string{abi.VcekGUID, abi.VlekGUID} {
		swapped := keyGUIDs[i+2]
		slices.Reverse(swapped[:4])
		slices.Reverse(swapped[4:6])
		slices.Reverse(swapped[6:8])
		if got := uuid.UUID(swapped).String(); got != want || uuid.UUID(keyGUIDs[i]).String() != want {
			t.Errorf("GUID %d is of %s, expected %s", i, got, want)
		}
	}
	twice := certificateTable(72, 4, nil)[:tableEntry]
	twice = append(append(bytes.Clone(twice), certificateTable(72, 4, nil)...), "cert"...)
	for name, in := range map[string][]byte{
		"overlap":  twice,
		"chain":    (&abi.CertTable{Entries: full.Entries[:2]}).Marshal(),
		"zero":     make([]byte, 4096),
		"outside":  certificateTable(48, 4096, []byte("cert")),
		"overflow": certificateTable(0xffffffff, 0xffffffff, nil),
		"no end":   bytes.Repeat([]byte{1}, 24*3),
		"short":    {1, 2, 3},
		"empty":    nil,
	} {
		if got := cutCertificates(in); got != nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}

func FuzzCutCertificates(f *testing.F) {
	f.Add(certificateTable(48, 4, []byte("cert")))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := cutCertificates(in)
		if again := cutCertificates(out); len(out) > len(in) || !bytes.Equal(again, out) {
			t.Fatalf("%x, then %x, from %x", out, again, in)
		}
	})
}

func TestSEVGuestWithoutDevice(t *testing.T) {
	_, err := sevGuest{path: filepath.Join(t.TempDir(), "sev-guest")}.Attest(context.Background(), kbs.ReportData{})
	if err == nil {
		t.Fatal("evidence without a device")
	}
	// A file is no device either: ENOTTY, not an empty report.
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if e, err := (sevGuest{path: path}).Attest(ctx, kbs.ReportData{}); err == nil {
		t.Fatalf("evidence %x from a plain file", e.Report)
	}
}

func TestFindPort(t *testing.T) {
	class := t.TempDir()
	for dir, name := range map[string]string{"vport1p1": "io.ccrun.control\n", "vport1p2": "io.ccrun.report\n", "vport1p3": strings.Repeat("x", 4096)} {
		if err := os.MkdirAll(filepath.Join(class, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, dir, "name"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findPort(class, reportPort); err != nil || got != "/dev/vport1p2" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := findPort(class, "io.ccrun"); err == nil {
		t.Errorf("a prefix matches: %q", got)
	}
	if _, err := findPort(filepath.Join(class, "absent"), reportPort); err == nil {
		t.Error("no class, no error")
	}
}
