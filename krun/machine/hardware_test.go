package machine

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/measure"
)

// image is firmware as far as a command line looks at it.
func image() []byte { return bytes.Repeat([]byte("firmware"), biosAlign/8) }

func goodSNP() SNP {
	return SNP{OVMF: image(), CPU: "EPYC-v4", HostData: sha256.Sum256([]byte("identity")), CBit: 51}
}

func goodTDX() TDX {
	return TDX{OVMF: image(), ConfigID: kbs.Sum384([]byte("identity")), QuoteSocket: "/.ccrun/quotes"}
}

// laid is the command line of h, and its objects by the option before them.
func laid(t *testing.T, h Hardware) (*command, error) {
	t.Helper()
	c := new(command)
	err := h.layOut(c, measure.Shape{CPUs: 2, MemoryMiB: 2048})
	t.Cleanup(func() { closeAll(c.own) })
	return c, err
}

func after(c *command, option string) string {
	if i := slices.Index(c.args, option); i >= 0 {
		return c.args[i+1]
	}
	return ""
}

func TestSNPCommandLine(t *testing.T) {
	h := goodSNP()
	c, err := laid(t, h)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"-machine", "q35,confidential-guest-support=tee,smm=off,vmport=off", "-accel", "kvm", "-cpu", "EPYC-v4",
		"-smp", "2", "-m", "2048", "-bios", "/proc/self/fd/3", "-object"}
	if !slices.Equal(c.args[:len(c.args)-1], want) {
		t.Errorf("command line %q, expected %q", c.args, want)
	}
	var o map[string]any
	if err := json.Unmarshal([]byte(after(c, "-object")), &o); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"qom-type": "sev-snp-guest", "id": "tee", "cbitpos": 51.0, "reduced-phys-bits": 1.0,
		"policy": float64(0x30000), "kernel-hashes": true} {
		if o[name] != want {
			t.Errorf("%s is %v, expected %v", name, o[name], want)
		}
	}
	var hostData struct {
		HostData []byte `json:"host-data"`
	}
	if err := json.Unmarshal([]byte(after(c, "-object")), &hostData); err != nil || !bytes.Equal(hostData.HostData, h.HostData[:]) {
		t.Errorf("HOST_DATA %x, %v", hostData.HostData, err)
	}
	if len(o) != 7 {
		t.Errorf("members %v", o)
	}
}

func TestTDXCommandLine(t *testing.T) {
	h := goodTDX()
	c, err := laid(t, h)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"-machine", "q35,kernel-irqchip=split,confidential-guest-support=tee,smm=off,vmport=off", "-accel", "kvm", "-cpu", "host",
		"-smp", "2", "-m", "2048", "-bios", "/proc/self/fd/3", "-object"}
	if !slices.Equal(c.args[:len(c.args)-1], want) {
		t.Errorf("command line %q, expected %q", c.args, want)
	}
	var o tdxObject
	d := json.NewDecoder(strings.NewReader(after(c, "-object")))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		t.Fatal(err)
	}
	if o.Type != "tdx-guest" || o.ID != "tee" || !bytes.Equal(o.MRConfigID, h.ConfigID[:]) || o.QuoteSocket != (socketAddress{"unix", "/.ccrun/quotes"}) {
		t.Errorf("object %+v", o)
	}
	if text := strings.Join(c.args, " "); strings.Contains(text, "debug") || strings.Contains(text, "attributes") {
		t.Errorf("attributes asked for: %s", text)
	}
}

// TestNothingIsLeftOpen: what decides who the machine is cannot be left out, and
// nothing in it can become an option of its own.
func TestNothingIsLeftOpen(t *testing.T) {
	for name, h := range map[string]Hardware{
		"SNP, zero":              SNP{},
		"SNP without HOST_DATA":  func() SNP { h := goodSNP(); h.HostData = [32]byte{}; return h }(),
		"SNP without firmware":   func() SNP { h := goodSNP(); h.OVMF = nil; return h }(),
		"SNP, firmware cut off":  func() SNP { h := goodSNP(); h.OVMF = h.OVMF[:4096]; return h }(),
		"SNP without C-bit":      func() SNP { h := goodSNP(); h.CBit = 0; return h }(),
		"SNP, C-bit too far up":  func() SNP { h := goodSNP(); h.CBit = 64; return h }(),
		"SNP without CPU":        func() SNP { h := goodSNP(); h.CPU = ""; return h }(),
		"SNP, unknown CPU":       func() SNP { h := goodSNP(); h.CPU = "Opteron"; return h }(),
		"SNP, CPU with options":  func() SNP { h := goodSNP(); h.CPU = "EPYC-v4,-rdrand"; return h }(),
		"SNP, CPU by signature":  func() SNP { h := goodSNP(); h.CPU = "0xa00f11"; return h }(),
		"TDX, zero":              TDX{},
		"TDX without identity":   func() TDX { h := goodTDX(); h.ConfigID = kbs.Digest{}; return h }(),
		"TDX without firmware":   func() TDX { h := goodTDX(); h.OVMF = nil; return h }(),
		"TDX without quotes":     func() TDX { h := goodTDX(); h.QuoteSocket = ""; return h }(),
		"TDX, socket too long":   func() TDX { h := goodTDX(); h.QuoteSocket = "/" + strings.Repeat("x", maxSocketPath); return h }(),
		"emulated, odd firmware": Emulated{OVMF: image()[:5]},
	} {
		if c, err := laid(t, h); err == nil {
			t.Errorf("%s: laid out as %q", name, c.args)
		}
	}
	h := goodTDX()
	h.QuoteSocket = `/x","debug":true,"a":"`
	c, err := laid(t, h)
	var o map[string]any
	if err != nil || json.Unmarshal([]byte(after(c, "-object")), &o) != nil || len(o) != 4 {
		t.Errorf("a path became members: %v (%v)", o, err)
	}
}

// TestFirmwareIsTheBytesLookedAt: QEMU opens sealed memory and no path.
func TestFirmwareIsTheBytesLookedAt(t *testing.T) {
	for name, h := range map[string]Hardware{"snp": goodSNP(), "tdx": goodTDX(),
		"emulated": Emulated{OVMF: image(), Hashes: []byte("page"), HashesGPA: 0x810000}} {
		c, err := laid(t, h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.own[0].WriteAt([]byte("x"), 0); err == nil {
			t.Errorf("%s: the firmware can be written", name)
		}
		b, err := io.ReadAll(io.NewSectionReader(c.own[0], 0, 1<<20))
		if err != nil || !bytes.Equal(b, image()) || after(c, "-bios") != "/proc/self/fd/3" {
			t.Errorf("%s: %d bytes by %s (%v)", name, len(b), after(c, "-bios"), err)
		}
		if name == "emulated" && after(c, "-device") != "loader,file=/proc/self/fd/4,addr=0x810000,force-raw=on" {
			t.Errorf("hashes by %s", after(c, "-device"))
		}
	}
}

func TestCheckMemory(t *testing.T) {
	text := "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    4194304 kB\n"
	for _, c := range []struct {
		meminfo string
		mib     uint
		good    bool
	}{
		{text, 2048, true}, {text, 4096 - vmmMemoryBytes>>20, true}, {text, 4096 - vmmMemoryBytes>>20 + 1, false},
		{text, 1 << 20, false}, {"", 1, false}, {"MemAvailable: much kB\n", 1, false}, {"MemAvailable: 99999999 MB\n", 1, false},
	} {
		if err := checkMemory(c.meminfo, c.mib); (err == nil) != c.good {
			t.Errorf("%d MiB: %v", c.mib, err)
		}
	}
	if err := CheckMemory(1 << 40); err == nil {
		t.Error("an exbibyte is to be had")
	}
}

func TestCheckQuotes(t *testing.T) {
	dir := t.TempDir()
	l, err := os.Create(dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, path := range []string{dir + "/none", dir + "/file", dir} {
		if err := CheckQuotes(path); err == nil {
			t.Errorf("quotes from %s", path)
		}
	}
}
