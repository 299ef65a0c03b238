package measure

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtee/sev-snp-measure-go/cpuid"
	"github.com/virtee/sev-snp-measure-go/guest"
	"github.com/virtee/sev-snp-measure-go/ovmf"
	"github.com/virtee/sev-snp-measure-go/vmmtypes"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
)

func parseOVMF(t testing.TB, spec ovmftest.Spec) *firmware.OVMF {
	t.Helper()
	o, err := firmware.ParseOVMF(spec.Build())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func snpInputs(t testing.TB) Inputs {
	return Inputs{OVMF: parseOVMF(t, ovmftest.AmdSev()), CPUSignature: 0x800f12, GuestFeatures: 1,
		Kernel: noise(2, 9000), Initrd: noise(3, 5000), Cmdline: "console=ttyS0 " + StopsACPI}
}

// TestPublishedSNPVectors: the digests that virtee/sev-snp-measure publishes
// (tests/test_guest.py at 8f2b337) for edk2-stable202405's AmdSev build, whose
// image is given by its own part of the digest. Kernel and initrd are empty
// files there.
func TestPublishedSNPVectors(t *testing.T) {
	image, err := hex.DecodeString("086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74")
	if err != nil {
		t.Fatal(err)
	}
	in := Inputs{OVMF: parseOVMF(t, ovmftest.AmdSev()), CPUSignature: cpuSignature(23, 1, 2)}
	for _, v := range []struct {
		cpus     int
		cmdline  string
		features uint64
		hashes   bool
		want     string
	}{
		{1, "", 0x21, true, "329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198"},
		{1, "", 0x1, true, "ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5"},
		{1, "console=ttyS0 loglevel=7", 0x21, true, "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977"},
		{1, "console=ttyS0 loglevel=7", 0x1, true, "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa"},
		{1, "", 0x21, false, "e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b"},
		{1, "", 0x1, false, "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d"},
		{4, "", 0x21, true, "4953b1fb416fa874980e8442b3706d345926d5f38879134e00813c5d7abcbe78eafe7b422907be0b4698e2414a631942"},
		{4, "", 0x1, true, "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5"},
	} {
		in.Cmdline, in.GuestFeatures = v.cmdline, v.features
		var hashes *[pageBytes]byte
		if v.hashes {
			hashes = in.hashPage(uint64(in.OVMF.HashTableGPA) % pageBytes)
		}
		ld := chain(image)
		for _, s := range in.OVMF.SEV {
			ld.updateSection(s, hashes)
		}
		for i := range v.cpus {
			page := in.ovmfVMSA(i == 0)
			h := sha512.Sum384(page[:])
			ld.update(pageVMSA, vmsaGPA, &h)
		}
		if got := hex.EncodeToString(ld[:]); got != v.want {
			t.Errorf("%d vCPUs, %q, features %#x, hashes %v: %s, want %s", v.cpus, v.cmdline, v.features, v.hashes, got, v.want)
		}
	}
}

// TestSNPAgainstCalculator compares with virtee/sev-snp-measure-go, which
// shares no code with us. It knows no kernel hashes.
func TestSNPAgainstCalculator(t *testing.T) {
	spec := ovmftest.AmdSev()
	spec.SEV = append(spec.SEV[:5:5], spec.SEV[6])
	spec.ResetEIP = 0x1234567
	file := filepath.Join(t.TempDir(), "OVMF.fd")
	if err := os.WriteFile(file, spec.Build(), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs, err := ovmf.New(file)
	if err != nil {
		t.Fatal(err)
	}
	in := Inputs{OVMF: parseOVMF(t, spec)}
	image, err := guest.OVMFHash(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for name := range cpuid.CpuSigs {
		for _, features := range []uint64{1, 0x21} {
			for _, cpus := range []uint{1, 2, 64} {
				want, err := guest.LaunchDigestFromOVMF(theirs, features, int(cpus), image, vmmtypes.QEMU, name)
				if err != nil {
					t.Fatal(err)
				}
				if in.CPUSignature, err = ParseCPU(name); err != nil {
					t.Fatal(err)
				}
				in.GuestFeatures = features
				got, err := Launch(QEMUSNP, in, Shape{cpus, 2048})
				if err != nil || got.Digest.String() != hex.EncodeToString(want) {
					t.Errorf("%s, %d vCPUs, features %#x: %v, want %x (%v)", name, cpus, features, got, want, err)
				}
			}
		}
	}
}

// TestDebianFirmware compares with other calculators' results for Debian's
// firmware files: SNP by virtee/sev-snp-measure (Python), MRTD by
// google/gce-tcb-verifier. CCRUN_OVMF names a directory to look in first.
func TestDebianFirmware(t *testing.T) {
	found := 0
	for _, v := range []struct{ name, sum, snp, mrtd string }{
		{"OVMF.fd", "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773", "32ac9d7a17d28f7cd4404a4516d2f00519668c40ada2062351c36767e908eb3f090d66c33ab10f80150e00a4385b6d0f",
			"4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47"},
		{"OVMF.amdsev.fd", "3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f", "13a6ae9fbaa31c91ade309c36bd5214729438abac318e01176e02a97b8bec11a4bce86b4d2b1fba2ec0481dd24ff525f",
			"5f77220a7135b2be2087c3555b897a1c56ca84516fafc622a33fa498a46305a12597a18bb57bc50f714ffab9fe6f004d"},
		{"OVMF.inteltdx.ms.fd", "a265075b4147a096109e501e76196df1ec8a18659c26f7401492c597ec88f312", "",
			"a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08"},
	} {
		b := debianFile(v.name)
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != v.sum {
			t.Logf("no %s of the known version", v.name)
			continue
		}
		found++
		o, err := firmware.ParseOVMF(b)
		if err != nil {
			t.Fatal(err)
		}
		in := Inputs{OVMF: o, CPUSignature: cpuSignature(23, 1, 2), GuestFeatures: 1}
		if r, err := Launch(QEMUTDX, in, Shape{4, 2048}); err != nil || r.Digest.String() != v.mrtd {
			t.Errorf("%s: MRTD %v, want %s (%v)", v.name, r, v.mrtd, err)
		}
		if r, err := Launch(QEMUSNP, in, Shape{4, 2048}); v.snp == "" && err == nil || v.snp != "" && (err != nil || r.Digest.String() != v.snp) {
			t.Errorf("%s: SNP %v, want %s (%v)", v.name, r, v.snp, err)
		}
	}
	if found == 0 {
		t.Skip("no firmware of Debian's package ovmf, ovmf-amdsev or ovmf-inteltdx")
	}
}

func debianFile(name string) []byte {
	for _, dir := range []string{os.Getenv("CCRUN_OVMF"), "/usr/share/ovmf", "/usr/share/OVMF"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); dir != "" && err == nil {
			return b
		}
	}
	return nil
}

func TestSNPEveryInputCounts(t *testing.T) {
	seen := map[string]string{}
	for name, change := range map[string]func(*Inputs, *Shape){
		"nothing":  func(*Inputs, *Shape) {},
		"kernel":   func(in *Inputs, _ *Shape) { in.Kernel = noise(2, 9001) },
		"initrd":   func(in *Inputs, _ *Shape) { in.Initrd = nil },
		"cmdline":  func(in *Inputs, _ *Shape) { in.Cmdline = "acpi=off" },
		"cpu":      func(in *Inputs, _ *Shape) { in.CPUSignature++ },
		"features": func(in *Inputs, _ *Shape) { in.GuestFeatures = 0x21 },
		"cpus":     func(_ *Inputs, s *Shape) { s.CPUs++ },
		"no kernel": func(in *Inputs, _ *Shape) {
			in.Kernel, in.Initrd, in.Cmdline = nil, nil, ""
		},
		"firmware": func(in *Inputs, _ *Shape) {
			spec := ovmftest.AmdSev()
			spec.SizeBytes *= 2
			in.OVMF = parseOVMF(t, spec)
		},
	} {
		in, s := snpInputs(t), Shape{2, 1024}
		change(&in, &s)
		r, err := Launch(QEMUSNP, in, s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if other, twice := seen[r.Digest.String()]; twice {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[r.Digest.String()] = name
		if want := 8 + int(s.CPUs); len(r.Regions) != want {
			t.Errorf("%s: %d regions, want %d", name, len(r.Regions), want)
		}
	}
}

func TestSNPRefuses(t *testing.T) {
	for name, change := range map[string]func(*Inputs, *Shape){
		"no firmware":     func(in *Inputs, _ *Shape) { in.OVMF = nil },
		"no metadata":     func(in *Inputs, _ *Shape) { in.OVMF = parseOVMF(t, ovmftest.TDVF()) },
		"no CPU":          func(in *Inputs, _ *Shape) { in.CPUSignature = 0 },
		"no SNP feature":  func(in *Inputs, _ *Shape) { in.GuestFeatures = 0x20 },
		"no cpus":         func(_ *Inputs, s *Shape) { s.CPUs = 0 },
		"too many cpus":   func(_ *Inputs, s *Shape) { s.CPUs = 513 },
		"initrd alone":    func(in *Inputs, _ *Shape) { in.Kernel = nil },
		"NUL in cmdline":  func(in *Inputs, _ *Shape) { in.Cmdline = StopsACPI + " a\x00b" },
		"qboot":           func(in *Inputs, _ *Shape) { in.QBoot = noise(1, 4096) },
		"no reset block":  func(in *Inputs, _ *Shape) { in.OVMF.ResetEIP = 0 },
		"no hash table":   func(in *Inputs, _ *Shape) { in.OVMF.HashTableGPA = 0 },
		"hashes outside":  func(in *Inputs, _ *Shape) { in.OVMF.HashTableGPA = 0x811000 },
		"hashes too late": func(in *Inputs, _ *Shape) { in.OVMF.HashTableGPA = 0x810f51 },
		"generic build":   func(in *Inputs, _ *Shape) { in.OVMF = parseOVMF(t, genericOVMF()) },
		"no hash page":    func(in *Inputs, _ *Shape) { in.OVMF.SEV = in.OVMF.SEV[:5] },
		"two hash pages": func(in *Inputs, _ *Shape) {
			in.OVMF.SEV = append(in.OVMF.SEV, firmware.SEVSection{GPA: 0x900000, SizeBytes: pageBytes, Type: firmware.SEVKernelHashes})
		},
		"empty section": func(in *Inputs, _ *Shape) {
			in.OVMF.SEV = append(in.OVMF.SEV, firmware.SEVSection{Type: firmware.SEVMemory})
		},
	} {
		in, s := snpInputs(t), Shape{2, 1024}
		change(&in, &s)
		if r, err := Launch(QEMUSNP, in, s); err == nil {
			t.Errorf("%s: %v", name, r.Digest)
		}
	}
}

// genericOVMF has the page for hashes since edk2 4b1711d431, and a compressed
// volume, but no code in it that compares them.
func genericOVMF() ovmftest.Spec {
	spec := ovmftest.AmdSev()
	spec.Volume = noise(9, 8192)
	return spec
}

// TestHashPageIsNoVerifier: such firmware has a digest of its own, but none with
// a kernel.
func TestHashPageIsNoVerifier(t *testing.T) {
	in := snpInputs(t)
	in.OVMF = parseOVMF(t, genericOVMF())
	if r, err := Launch(QEMUSNP, in, Shape{2, 1024}); !errors.Is(err, ErrUnverified) || !strings.Contains(hint.Of(err), "AmdSev") {
		t.Errorf("%v, %v; %s", r, err, hint.Of(err))
	}
	in.Kernel, in.Initrd, in.Cmdline = nil, nil, ""
	if _, err := Launch(QEMUSNP, in, Shape{2, 1024}); err != nil {
		t.Errorf("without a kernel: %v", err)
	}
}

func TestParseCPU(t *testing.T) {
	for name, want := range map[string]uint32{"EPYC": 0x800f12, "EPYC-v4": 0x800f12, "EPYC-Milan-v2": 0xa00f11, "EPYC-Genoa": 0xa10f10, "EPYC-Turin": 0xb00f00, "0xa00f11": 0xa00f11} {
		if got, err := ParseCPU(name); err != nil || got != want {
			t.Errorf("%s: %#x, want %#x (%v)", name, got, want, err)
		}
	}
	for _, bad := range []string{"", "host", "EPYC-", "EPYC-vx", "0x0", "0x", "0x100000000", "Opteron"} {
		if got, err := ParseCPU(bad); err == nil {
			t.Errorf("%q: %#x", bad, got)
		}
	}
}
