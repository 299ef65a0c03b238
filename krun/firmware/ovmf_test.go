package firmware_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
)

func TestParseOVMF(t *testing.T) {
	spec := ovmftest.AmdSev()
	spec.TDX = ovmftest.TDVF().TDX
	b := spec.Build()
	o, err := firmware.ParseOVMF(b)
	if err != nil {
		t.Fatal(err)
	}
	if o.ResetEIP != 0x80b004 || o.HashTableGPA != 0x810c00 || o.GPA() != 0xffff0000 || len(o.SEV) != 7 || len(o.TDX) != 6 {
		t.Errorf("%#x %#x %#x %+v", o.ResetEIP, o.HashTableGPA, o.GPA(), o.SEV)
	}
	if got := o.SEV[5]; got != (firmware.SEVSection{GPA: 0x810000, SizeBytes: 0x1000, Type: firmware.SEVKernelHashes}) {
		t.Errorf("%+v", got)
	}
	if code, vars := o.TDX[0], o.TDX[1]; !code.Extend || vars.Extend || !slices.Equal(code.Data, b[0x4000:]) || !slices.Equal(vars.Data, b[:0x4000]) {
		t.Errorf("code at %#x, variables at %#x", code.GPA, vars.GPA)
	}
	if o, err := firmware.ParseOVMF((ovmftest.Spec{SizeBytes: 4096}).Build()); err != nil || o.SEV != nil || o.TDX != nil || o.ResetEIP != 0 {
		t.Errorf("firmware without metadata: %+v, %v", o, err)
	}
}

// TestParseOVMFRefuses changes one thing at a time.
func TestParseOVMFRefuses(t *testing.T) {
	for name, change := range map[string]func(*ovmftest.Spec){
		"unaligned address":        func(s *ovmftest.Spec) { s.SEV[0][0] = 0x800001 },
		"unaligned size":           func(s *ovmftest.Spec) { s.SEV[0][1] = 0x8fff },
		"unknown SEV type":         func(s *ovmftest.Spec) { s.SEV[0][2] = 9 },
		"secrets of two pages":     func(s *ovmftest.Spec) { s.SEV = [][3]uint32{{0x80d000, 0x2000, 2}} },
		"overlap":                  func(s *ovmftest.Spec) { s.SEV[1][0] = 0x808000 },
		"into the image":           func(s *ovmftest.Spec) { s.SEV[0][0] = 0xffff0000 },
		"too much":                 func(s *ovmftest.Spec) { s.SEV = [][3]uint32{{0, 0x8000000, 1}} },
		"no SEV sections":          func(s *ovmftest.Spec) { s.SEV = [][3]uint32{} },
		"too many SEV sections":    func(s *ovmftest.Spec) { s.SEV = make([][3]uint32, 65) },
		"TDX data beyond the file": func(s *ovmftest.Spec) { s.TDX[0].Offset = 0x8000 },
		"TDX data shorter":         func(s *ovmftest.Spec) { s.TDX[0].DataBytes -= 0x1000 },
		"TDX unaligned":            func(s *ovmftest.Spec) { s.TDX[2].Address++ },
		"TDX empty":                func(s *ovmftest.Spec) { s.TDX[2].MemoryBytes = 0 },
		"TDX address overflow":     func(s *ovmftest.Spec) { s.TDX[2].Address = 1<<64 - 0x1000 },
		"TDX size overflow":        func(s *ovmftest.Spec) { s.TDX[2].MemoryBytes = 1<<64 - 0x1000 },
		"TDX type PermMem":         func(s *ovmftest.Spec) { s.TDX[2].Type = 4 },
		"TDX PAGE.AUG":             func(s *ovmftest.Spec) { s.TDX[2].Attributes = 2 },
		"TDX extended HOB":         func(s *ovmftest.Spec) { s.TDX[4].Attributes = 1 },
		"TDX temporary with data":  func(s *ovmftest.Spec) { s.TDX[2].DataBytes = 0x1000 },
		"TDX no HOB":               func(s *ovmftest.Spec) { s.TDX[4].Type = 3 },
		"TDX two HOBs":             func(s *ovmftest.Spec) { s.TDX[3].Type = 2 },
		"TDX overlap":              func(s *ovmftest.Spec) { s.TDX[3].Address = 0x80a000 },
		"TDX too much":             func(s *ovmftest.Spec) { s.TDX[2].MemoryBytes = 0x8000000 },
		"TDX too many sections":    func(s *ovmftest.Spec) { s.TDX = make([]ovmftest.Section, 65) },
		"TDX without any section":  func(s *ovmftest.Spec) { s.TDX = []ovmftest.Section{} },
	} {
		spec := ovmftest.AmdSev()
		spec.TDX = ovmftest.TDVF().TDX
		change(&spec)
		if o, err := firmware.ParseOVMF(spec.Build()); !errors.Is(err, firmware.ErrOVMF) {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
}

// TestParseOVMFBytes changes the table and the headers of the metadata.
func TestParseOVMFBytes(t *testing.T) {
	spec := ovmftest.AmdSev()
	spec.TDX = ovmftest.TDVF().TDX
	for name, change := range map[string]func(b []byte) []byte{
		"empty":               func(b []byte) []byte { return nil },
		"not whole pages":     func(b []byte) []byte { return b[1:] },
		"too large":           func(b []byte) []byte { return make([]byte, firmware.MaxOVMFBytes+4096) },
		"no table":            func(b []byte) []byte { return make([]byte, 4096) },
		"table longer":        func(b []byte) []byte { put16(b, -50, 0xffff); return b },
		"table shorter":       func(b []byte) []byte { put16(b, -50, 17); return b },
		"table cuts an entry": func(b []byte) []byte { put16(b, -50, 30); return b },
		"entry too long":      func(b []byte) []byte { put16(b, -68, 0x4000); return b },
		"entry too short":     func(b []byte) []byte { put16(b, -68, 17); return b },
		"SEV signature":       func(b []byte) []byte { b[len(b)-0x800]++; return b },
		"SEV length":          func(b []byte) []byte { b[len(b)-0x800+4]++; return b },
		"SEV version":         func(b []byte) []byte { b[len(b)-0x800+8]++; return b },
		"SEV count":           func(b []byte) []byte { b[len(b)-0x800+12]--; return b },
		"TDX signature":       func(b []byte) []byte { b[len(b)-0xc00]++; return b },
		"TDX version":         func(b []byte) []byte { b[len(b)-0xc00+8] = 2; return b },
	} {
		if _, err := firmware.ParseOVMF(change(spec.Build())); !errors.Is(err, firmware.ErrOVMF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func put16(b []byte, at int, v uint16) { binary.LittleEndian.PutUint16(b[len(b)+at:], v) }

// FuzzParseOVMF varies the end of a file, where all metadata is.
func FuzzParseOVMF(f *testing.F) {
	spec := ovmftest.AmdSev()
	spec.TDX = ovmftest.TDVF().TDX
	b := spec.Build()
	f.Add(b[len(b)-0x1000:])
	f.Add((ovmftest.Spec{SizeBytes: 4096}).Build())
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := firmware.ParseOVMF(b)
		if err != nil {
			return
		}
		for _, s := range o.SEV {
			if s.GPA+s.SizeBytes > o.GPA() {
				t.Errorf("section %+v runs into the image at %#x", s, o.GPA())
			}
		}
		for _, s := range o.TDX {
			if s.Extend && uint64(len(s.Data)) != s.SizeBytes || s.GPA+s.SizeBytes > 1<<32 {
				t.Errorf("section at %#x of %#x bytes with %#x of data", s.GPA, s.SizeBytes, len(s.Data))
			}
		}
	})
}
