package firmware_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
)

func verifies(t *testing.T, b []byte) (bool, error) {
	t.Helper()
	o, err := firmware.ParseOVMF(b)
	if err != nil {
		t.Fatal(err)
	}
	return o.VerifiesKernel()
}

func TestVerifiesKernel(t *testing.T) {
	with := func(volume []byte) []byte {
		spec := ovmftest.AmdSev()
		spec.Volume = volume
		return spec.Build()
	}
	without := func(offset int) []byte {
		v := ovmftest.Verifier()
		v[offset] ^= 1
		return v
	}
	for name, c := range map[string]struct {
		image []byte
		want  bool
	}{
		"AmdSev":                       {with(ovmftest.Verifier()), true},
		"no volume":                    {with(nil), false},
		"another volume":               {with(make([]byte, 8192)), false},
		"no hash of the command line":  {with(without(100)), false},
		"no hash of the initrd":        {with(without(1100)), false},
		"no hash of the kernel":        {with(without(2100)), false},
		"the GUIDs, but not as a file": {bytes.Join([][]byte{with(nil)[:0x8000], ovmftest.Verifier(), with(nil)[0x8000+8192:]}, nil), false},
	} {
		if got, err := verifies(t, c.image); err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
}

func TestMeasuresTD(t *testing.T) {
	for name, c := range map[string]struct {
		volume []byte
		want   bool
	}{"TDVF": {ovmftest.TDDriver(), true}, "AmdSev": {ovmftest.Verifier(), false}, "none": {nil, false}} {
		spec := ovmftest.TDVF()
		spec.Volume = c.volume
		o, err := firmware.ParseOVMF(spec.Build())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := o.MeasuresTD(); err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
	spec := ovmftest.TDVF()
	b := spec.Build()
	binary.LittleEndian.PutUint64(b[0x100+24+5:], 1<<40)
	o, err := firmware.ParseOVMF(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.MeasuresTD(); got || !errors.Is(err, firmware.ErrOVMF) {
		t.Errorf("huge volume: %v, %v", got, err)
	}
}

// TestHostileVolumes: nothing is allocated on a file's word, and what cannot be
// read is no verifier.
func TestHostileVolumes(t *testing.T) {
	const section, lzma = 0x100, 0x100 + 24
	for name, spoil := range map[string]func(b []byte) []byte{
		"huge volume":        func(b []byte) []byte { binary.LittleEndian.PutUint64(b[lzma+5:], 1<<40); return b },
		"size unknown":       func(b []byte) []byte { binary.LittleEndian.PutUint64(b[lzma+5:], 1<<64-1); return b },
		"empty volume":       func(b []byte) []byte { binary.LittleEndian.PutUint64(b[lzma+5:], 0); return b },
		"huge dictionary":    func(b []byte) []byte { binary.LittleEndian.PutUint32(b[lzma+1:], 1<<31); return b },
		"unknown properties": func(b []byte) []byte { b[lzma] = 0xff; return b },
		"longer than it is":  func(b []byte) []byte { binary.LittleEndian.PutUint64(b[lzma+5:], 9000); return b },
	} {
		if got, err := verifies(t, spoil(ovmftest.AmdSev().Build())); got || !errors.Is(err, firmware.ErrOVMF) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// These are no sections at all.
	for name, spoil := range map[string]func(b []byte){
		"another type":        func(b []byte) { b[section+3] = 0x10 },
		"beyond the file":     func(b []byte) { b[section+2] = 0xff },
		"shorter than header": func(b []byte) { b[section], b[section+1] = 30, 0 },
		"data in the header":  func(b []byte) { b[section+20] = 4 },
	} {
		b := ovmftest.AmdSev().Build()
		spoil(b)
		if got, err := verifies(t, b); got || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// FuzzVerifiesKernel: no image makes it panic, or take more than it may.
func FuzzVerifiesKernel(f *testing.F) {
	f.Add(ovmftest.AmdSev().Build())
	f.Fuzz(func(t *testing.T, b []byte) {
		o := &firmware.OVMF{Image: b}
		if ok, err := o.VerifiesKernel(); ok && err != nil {
			t.Fatal(err)
		}
	})
}

// TestDebianVerifiers is about Debian's own builds: the package ovmf-amdsev has
// the one that verifies. CCRUN_OVMF names a directory to look in first.
func TestDebianVerifiers(t *testing.T) {
	found := 0
	for name, want := range map[string]bool{"OVMF.amdsev.fd": true, "OVMF.fd": false, "OVMF.inteltdx.ms.fd": false} {
		for _, dir := range []string{os.Getenv("CCRUN_OVMF"), "/usr/share/ovmf"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if dir == "" || err != nil {
				continue
			}
			found++
			if got, err := verifies(t, b); err != nil || got != want {
				t.Errorf("%s in %s: %v, %v, want %v", name, dir, got, err, want)
			}
		}
	}
	if found == 0 {
		t.Skip("no firmware of Debian's packages ovmf, ovmf-amdsev, ovmf-inteltdx")
	}
}
