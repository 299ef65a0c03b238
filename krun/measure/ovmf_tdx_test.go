package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog/eventlogtest"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
)

func tdxInputs(t testing.TB) Inputs {
	return Inputs{OVMF: parseOVMF(t, ovmftest.TDVF()), Kernel: peKernel(t), Initrd: noise(3, 5000), Cmdline: "console=ttyS0"}
}

// TestFirmwareThatExtendsNothing: edk2's AmdSev build has TDX metadata and boots
// TDs, whose RTMRs stay zero. Without a kernel, an MRTD is all that is asked for.
func TestFirmwareThatExtendsNothing(t *testing.T) {
	in := tdxInputs(t)
	spec := ovmftest.TDVF()
	spec.Volume = ovmftest.Verifier()
	in.OVMF = parseOVMF(t, spec)
	for _, p := range []Profile{QEMUTDX, QEMUTDXInitrdLast, QEMUTDX2024, QEMUTDX2023} {
		if _, err := Launch(p, in, Shape{1, 2048}); !errors.Is(err, ErrUnmeasured) {
			t.Errorf("%s: %v", p, err)
		}
	}
	in.Kernel, in.Initrd, in.Cmdline = nil, nil, ""
	if _, err := Launch(QEMUTDX, in, Shape{1, 2048}); err != nil {
		t.Errorf("without a kernel: %v", err)
	}
}

// TestMRTDSecondImplementation writes the records out one by one.
func TestMRTDSecondImplementation(t *testing.T) {
	in := tdxInputs(t)
	image := in.OVMF.Image
	record := func(op string, gpa int) []byte {
		b := append([]byte(op), make([]byte, 128-len(op))...)
		binary.LittleEndian.PutUint64(b[16:], uint64(gpa))
		return b
	}
	const code = 0xffff4000
	for profile, twoPass := range map[Profile]bool{QEMUTDX: false, QEMUTDX2024: false, QEMUTDX2023: true} {
		var all, late bytes.Buffer
		for page := range 12 {
			all.Write(record("MEM.PAGE.ADD", code+page*0x1000))
			to := &all
			if twoPass {
				to = &late
			}
			for chunk := range 16 {
				at := page*0x1000 + chunk*0x100
				to.Write(record("MR.EXTEND", code+at))
				to.Write(image[0x4000+at:][:0x100])
			}
		}
		all.Write(late.Bytes())
		for _, r := range [][2]int{{0xffff0000, 4}, {0x810000, 16}, {0x80b000, 2}, {0x809000, 2}, {0x800000, 6}} {
			for page := range r[1] {
				all.Write(record("MEM.PAGE.ADD", r[0]+page*0x1000))
			}
		}
		want := sha512.Sum384(all.Bytes())
		if r, err := Launch(profile, in, Shape{2, 2048}); err != nil || r.Digest != want {
			t.Errorf("%s: %v, want %x (%v)", profile, r, want, err)
		}
	}
}

// TestPublishedTDHOB: the memory map event of a TD with 8 GiB under QEMU, in a
// log that google/go-eventlog publishes (testdata/eventlogs/ccel/CCEL_unpadded.data.bin).
func TestPublishedTDHOB(t *testing.T) {
	in := tdxInputs(t)
	hob, err := in.tdHOB(Shape{1, 8192})
	if err != nil {
		t.Fatal(err)
	}
	if got := kbs.Sum384(hob).String(); got != "2e070cda358b5aa00f27cca25c47381bb564f4be3a84d059805a73cbbde764ed8341f7e09915b5e7b370f9c08a743fbd" {
		t.Errorf("%s\n%x", got, hob)
	}
	seen := map[kbs.Digest]uint{}
	for _, m := range []uint{129, 2048, 2815, 2816, 4096} {
		hob, err := in.tdHOB(Shape{1, m})
		if seen[kbs.Sum384(hob)] != 0 || err != nil {
			t.Errorf("%d MiB: as %d MiB, %v", m, seen[kbs.Sum384(hob)], err)
		}
		seen[kbs.Sum384(hob)] = m
	}
	in.OVMF.TDX[2].GPA = 0x10000000
	if _, err := in.tdHOB(Shape{1, 200}); err == nil {
		t.Error("memory that ends below a section")
	}
}

// publishedEvents are digests in that log that no machine can have otherwise.
func TestPublishedEvents(t *testing.T) {
	want := map[string]string{
		"Calling EFI Application from Boot Option": "77a0dab2312b4e1e57a84d865a21e5b2ee8d677a21012ada819d0a98988078d3d740f6346bfe0abaa938ca20439a8d71",
		"separator":                                "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0",
		"Exit Boot Services Invocation":            "214b0bef1379756011344877743fdc2a5382bac6e70362d624ccf3f654407c1b4badf7d8f9295dd3dabdef65b27677e0",
		"Exit Boot Services Returned with Success": "0a2e01c85deae718a530ad8c6d20a84009babe6c8989269e950d8cf440c6e997695e64d455c4174a652cd080f6230b74",
	}
	for _, e := range rtmr1(kbs.Digest{}) {
		if d, ok := want[e.Name]; ok && d != e.SHA384.String() {
			t.Errorf("%s: %v, want %s", e.Name, e.SHA384, d)
		}
		delete(want, e.Name)
	}
	if len(want) != 0 {
		t.Errorf("not in RTMR1: %v", slices.Collect(maps.Keys(want)))
	}
}

func TestRTMRs(t *testing.T) {
	in := tdxInputs(t)
	r, err := Launch(QEMUTDX, in, Shape{2, 2048})
	if err != nil || len(r.RTMRs) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	utf16 := func(s string) (b []byte) {
		for _, c := range s {
			b = append(b, byte(c), 0)
		}
		return append(b, 0, 0)
	}
	want := kbs.Sum384(slices.Concat(make([]byte, 48), sum(utf16("initrd=initrd console=ttyS0"))))
	want = kbs.Sum384(slices.Concat(want[:], sum(in.Initrd)))
	if r.RTMRs[2] != want {
		t.Errorf("RTMR2 %v, want %v", r.RTMRs[2], want)
	}
	old, err := Launch(QEMUTDXInitrdLast, in, Shape{2, 2048})
	if err != nil || old.RTMRs[1] != r.RTMRs[1] || old.RTMRs[2] == r.RTMRs[2] || old.Digest != r.Digest {
		t.Errorf("older OVMF: %+v, %v", old, err)
	}
	in.Initrd = nil
	if r, err = Launch(QEMUTDX, in, Shape{2, 2048}); err != nil || r.RTMRs[2] != kbs.Sum384(slices.Concat(make([]byte, 48), sum(utf16("console=ttyS0")))) {
		t.Errorf("without initrd: %+v, %v", r, err)
	}
	in.Kernel, in.Cmdline = nil, ""
	if r, err = Launch(QEMUTDX, in, Shape{2, 2048}); err != nil || len(r.RTMRs) != 0 {
		t.Errorf("without kernel: %+v, %v", r, err)
	}
}

func sum(b []byte) []byte { d := kbs.Sum384(b); return d[:] }

// logOf is the event log that the machine would write.
func logOf(t *testing.T, p Profile, in Inputs, s Shape) []eventlog.Event {
	t.Helper()
	r, err := Launch(p, in, s)
	if err != nil {
		t.Fatal(err)
	}
	hob, err := in.tdHOB(s)
	if err != nil {
		t.Fatal(err)
	}
	list := []eventlog.Event{
		{Register: 0, Type: eventlog.HandoffTables2, Digest: kbs.Sum384(hob)},
		{Register: 0, Type: eventlog.FirmwareBlob2, Digest: kbs.Sum384(in.OVMF.TDX[1].Data)},
		{Register: 0, Type: eventlog.PlatformConfig, Digest: kbs.Sum384([]byte("tables")), Data: []byte("ACPI DATA")},
	}
	for _, e := range r.Regions {
		var register int
		if n, _ := fmt.Sscanf(e.Type, "rtmr%d", &register); n == 1 {
			list = append(list, eventlog.Event{Register: register, Type: eventlog.Action, Digest: *e.SHA384})
		}
	}
	return list
}

func withLog(t *testing.T, in Inputs, events []eventlog.Event) Inputs {
	t.Helper()
	l, err := eventlog.Parse(eventlogtest.Build(events))
	if err != nil {
		t.Fatal(err)
	}
	in.EventLog = l
	return in
}

func TestEventLogGivesRTMR0(t *testing.T) {
	in, s := tdxInputs(t), Shape{2, 2048}
	events := logOf(t, QEMUTDX, in, s)
	in = withLog(t, in, events)
	r, err := Launch(QEMUTDX, in, s)
	if err != nil || len(r.RTMRs) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	replayed := in.EventLog.Replay()
	for i, d := range r.RTMRs {
		if d != replayed[i] {
			t.Errorf("RTMR%d %v, the log has %v", i, d, replayed[i])
		}
	}
	for name, c := range map[string]struct {
		change func(e []eventlog.Event) []eventlog.Event
		shape  Shape
		want   string
	}{
		"memory":       {func(e []eventlog.Event) []eventlog.Event { return e }, Shape{2, 4096}, "memory map"},
		"variables":    {func(e []eventlog.Event) []eventlog.Event { e[1].Digest[0]++; return e }, s, "variables"},
		"no memory":    {func(e []eventlog.Event) []eventlog.Event { return e[1:] }, s, "no event for memory map"},
		"two memories": {func(e []eventlog.Event) []eventlog.Event { return append(e, e[0]) }, s, "RTMR0 event 3, memory map"},
		"kernel":       {func(e []eventlog.Event) []eventlog.Event { e[3].Digest[0]++; return e }, s, "RTMR1 event 0, kernel"},
		"initrd":       {func(e []eventlog.Event) []eventlog.Event { e[9].Digest[0]++; return e }, s, "RTMR2 event 1, initrd"},
		"short RTMR2":  {func(e []eventlog.Event) []eventlog.Event { return e[:9] }, s, "RTMR2 ends before event 1"},
		"long RTMR2":   {func(e []eventlog.Event) []eventlog.Event { return append(e, e[9]) }, s, "one event more"},
	} {
		_, err := Launch(QEMUTDX, withLog(t, in, c.change(slices.Clone(events))), c.shape)
		if !errors.Is(err, ErrEventLog) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestFindTDX(t *testing.T) {
	in, s := tdxInputs(t), Shape{2, 2048}
	other := in
	other.Cmdline = "quiet"
	profiles := Profiles(kbs.TDX, "ovmf")
	variants := []Variant{{Inputs: in}, {Name: "command line", Inputs: other}}
	for _, c := range []struct {
		p    Profile
		in   Inputs
		s    Shape
		want []string
	}{
		{QEMUTDX, in, s, []string{}},
		{QEMUTDXInitrdLast, in, s, []string{"profile"}},
		{QEMUTDX2023, in, s, []string{"profile"}},
		{QEMUTDX, other, s, []string{"command line"}},
		{QEMUTDX2024, in, Shape{2, 1024}, []string{"profile", "memory"}},
	} {
		r, err := Launch(c.p, c.in, c.s)
		if err != nil {
			t.Fatal(err)
		}
		want := TDXRegisters{MRTD: r.Digest, RTMRs: [4]kbs.Digest{1: r.RTMRs[1], 2: r.RTMRs[2]}}
		m := FindTDX(want, profiles, s, variants)
		if m == nil || !slices.Equal(m.Differs, c.want) || len(m.Unexplained) != 0 {
			t.Errorf("%s: %+v, want %v", c.p, m, c.want)
		}
		want.RTMRs[1][0]++
		if m := FindTDX(want, profiles, s, variants); m == nil || !slices.Equal(m.Unexplained, []string{"RTMR1 (kernel)"}) {
			t.Errorf("%s with another kernel: %+v", c.p, m)
		}
	}
	if m := FindTDX(TDXRegisters{}, profiles, s, variants); m != nil {
		t.Errorf("no register is right: %+v", m)
	}
}

func TestTDXRefuses(t *testing.T) {
	for name, change := range map[string]func(*Inputs){
		"no firmware":   func(in *Inputs) { in.OVMF = nil },
		"SNP firmware":  func(in *Inputs) { in.OVMF = parseOVMF(t, ovmftest.AmdSev()) },
		"no cmdline":    func(in *Inputs) { in.Cmdline = "" },
		"no EFI stub":   func(in *Inputs) { in.Kernel = noise(1, 0x3000) },
		"initrd alone":  func(in *Inputs) { in.Kernel, in.Cmdline = nil, "" },
		"UTF-8 cmdline": func(in *Inputs) { in.Cmdline = "caf\u00e9" },
	} {
		in := tdxInputs(t)
		change(&in)
		if r, err := Launch(QEMUTDX, in, Shape{2, 2048}); err == nil {
			t.Errorf("%s: %v", name, r.Digest)
		}
	}
}
