package measure

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"unicode/utf16"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
)

// tdxStack is what differs between versions of QEMU, host kernel and OVMF.
type tdxStack struct {
	twoPass     bool // host kernel adds all pages of a section, then extends them
	patched     bool // QEMU writes into the kernel's setup header
	initrdAfter bool // OVMF puts "initrd=initrd" after the command line
}

func stackOf(p Profile) (tdxStack, bool) {
	switch p {
	case QEMUTDX:
		return tdxStack{}, true
	case QEMUTDXInitrdLast:
		return tdxStack{initrdAfter: true}, true
	case QEMUTDX2024:
		return tdxStack{patched: true, initrdAfter: true}, true
	case QEMUTDX2023:
		return tdxStack{twoPass: true, patched: true, initrdAfter: true}, true
	}
	return tdxStack{}, false
}

// ErrEventLog reports an event log of another machine than the one measured.
var ErrEventLog = errors.New("event log is not of this machine")

func (in *Inputs) checkTDVF() error {
	switch {
	case in.OVMF == nil || len(in.OVMF.Image) == 0:
		return fmt.Errorf("no OVMF firmware")
	case len(in.OVMF.TDX) == 0:
		return fmt.Errorf("firmware has no TDX metadata, so no TD boots it")
	case len(in.Kernel) != 0 && in.Cmdline == "":
		return fmt.Errorf("no command line: what OVMF passes on then is not the same in all versions")
	}
	return in.checkDirectBoot()
}

// ErrUnmeasured reports firmware that boots TDs and extends no register of theirs.
var ErrUnmeasured = errors.New("firmware has no driver that extends a TD's RTMRs, so a quote would say nothing about the kernel")

// checkTDDriver is for machines whose kernel the registers are to tell of.
func (in *Inputs) checkTDDriver() error {
	if len(in.Kernel) == 0 {
		return nil
	}
	measures, err := in.OVMF.MeasuresTD()
	switch {
	case err != nil:
		return fmt.Errorf("looking for the driver that extends RTMRs: %w", err)
	case !measures:
		return hint.With(ErrUnmeasured, "take OVMF built with TdTcg2Dxe: OvmfPkgX64 or IntelTdxX64, and not AmdSevX64")
	}
	return nil
}

// qemuMRTD measures as QEMU and KVM launch a TD: the sections in their order,
// the image's code with its content, all else by address only. Neither kernel
// nor memory nor vCPUs are in it.
func (l *Prepared) qemuMRTD(p Profile) (kbs.LaunchDigest, error) {
	if err := l.in.checkTDVF(); err != nil {
		return kbs.LaunchDigest{}, err
	}
	if err := l.tdDriver(); err != nil {
		return kbs.LaunchDigest{}, err
	}
	if stack, _ := stackOf(p); stack.twoPass {
		return l.mrtdTwoPass(), nil
	}
	return l.mrtd(), nil
}

func mrtdOf(sections []firmware.TDXSection, twoPass bool) kbs.LaunchDigest {
	m := mrtd{h: sha512.New384()}
	for _, s := range sections {
		for off := uint64(0); off < s.SizeBytes; off += pageBytes {
			m.pageAdd(s.GPA + off)
			if s.Extend && !twoPass {
				m.extend(s.GPA+off, s.Data[off:off+pageBytes])
			}
		}
		if s.Extend && twoPass {
			m.extend(s.GPA, s.Data)
		}
	}
	return kbs.LaunchDigest(m.h.Sum(nil))
}

// rtmrs computes the runtime registers, with their events as regions. Without
// a kernel 1 and 2 are left out, without an event log 0 is: it has QEMU's ACPI
// tables, which depend on its version, the devices and the vCPUs.
func (l *Prepared) rtmrs(p Profile, s Shape) (map[int]kbs.Digest, []Region, error) {
	stack, _ := stackOf(p)
	events := map[int][]Region{}
	if len(l.in.Kernel) != 0 {
		kernel, err := l.kernelDigest(stack, s)
		if err != nil {
			return nil, nil, err
		}
		events[1] = rtmr1(kernel)
		events[2] = l.rtmr2(stack)
	}
	if l.in.EventLog != nil {
		zero, err := l.in.rtmr0(s)
		if err != nil {
			return nil, nil, err
		}
		for i := 1; i <= 2 && len(l.in.Kernel) != 0; i++ {
			if err := sameEvents(i, events[i], l.in.EventLog.Register(i)); err != nil {
				return nil, nil, err
			}
		}
		events[0] = zero
	}
	regs, list := map[int]kbs.Digest{}, []Region(nil)
	for i := range 4 {
		if events[i] == nil {
			continue
		}
		var r kbs.Digest
		for _, e := range events[i] {
			r = eventlog.Extend(r, *e.SHA384)
		}
		regs[i] = r
		list = append(list, events[i]...)
	}
	return regs, list, nil
}

// event is a region that has no address: an entry of a register's log.
func event(register int, name string, d kbs.Digest) Region {
	return Region{Name: name, Type: fmt.Sprintf("rtmr%d", register), SHA384: &d}
}

func textEvent(register int, text string) Region {
	return event(register, text, kbs.Sum384([]byte(text)))
}

// rtmr1 is what OVMF extends while it starts the kernel (edk2
// OvmfPkg/Tcg/TdTcg2Dxe/TdTcg2Dxe.c: OnReadyToBoot, OnExitBootServices).
func rtmr1(kernel kbs.Digest) []Region {
	return []Region{
		event(1, "kernel (Authenticode)", kernel),
		textEvent(1, "Calling EFI Application from Boot Option"),
		event(1, "separator", kbs.Sum384(make([]byte, 4))),
		textEvent(1, "Exit Boot Services Invocation"),
		textEvent(1, "Exit Boot Services Returned with Success"),
	}
}

// rtmr2 is what Linux' EFI stub extends (drivers/firmware/efi/libstub,
// efi_convert_cmdline and efi_load_initrd), from Linux 6.9 on: the load
// options as UTF-16 with a NUL, then the initrd.
func (l *Prepared) rtmr2(stack tdxStack) []Region {
	line := l.in.Cmdline
	if len(l.in.Initrd) != 0 { // edk2 OvmfPkg/Library/GenericQemuLoadImageLib
		if stack.initrdAfter {
			line += " initrd=initrd"
		} else {
			line = "initrd=initrd " + line
		}
	}
	var options []byte
	for _, c := range append(utf16.Encode([]rune(line)), 0) {
		options = append(options, byte(c), byte(c>>8))
	}
	list := []Region{event(2, "command line", kbs.Sum384(options))}
	if len(l.in.Initrd) != 0 {
		list = append(list, event(2, "initrd", l.initrdFile()))
	}
	return list
}

// rtmr0 takes the register from the event log. The two events that can be
// computed, the memory map and the firmware's variables, must be there and be
// right; all others are as trustworthy as where the log was taken.
func (in *Inputs) rtmr0(s Shape) ([]Region, error) {
	hob, err := in.tdHOB(s)
	if err != nil {
		return nil, err
	}
	computed := map[eventlog.Type]Region{eventlog.HandoffTables2: event(0, "memory map (TD HOB)", kbs.Sum384(hob))}
	for _, section := range in.OVMF.TDX {
		if section.Type == firmware.TDXConfiguration {
			computed[eventlog.FirmwareBlob2] = event(0, "variables (CFV)", kbs.Sum384(section.Data))
		}
	}
	var list []Region
	seen := map[eventlog.Type]int{}
	for i, e := range in.EventLog.Register(0) {
		want, known := computed[e.Type]
		seen[e.Type]++
		switch {
		case !known:
			want = event(0, e.Type.String(), e.Digest)
			want.Type += " (event log)"
		case *want.SHA384 != e.Digest || seen[e.Type] > 1:
			return nil, fmt.Errorf("RTMR0 event %d, %s: computed %v once, the log has %v: %w", i, want.Name, want.SHA384, e.Digest, ErrEventLog)
		}
		list = append(list, want)
	}
	for t, missing := range computed {
		if seen[t] == 0 {
			return nil, fmt.Errorf("RTMR0 has no event for %s: %w", missing.Name, ErrEventLog)
		}
	}
	return list, nil
}

func sameEvents(register int, want []Region, got []eventlog.Event) error {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("RTMR%d ends before event %d, %s: %w", register, i, want[i].Name, ErrEventLog)
		case i >= len(want):
			return fmt.Errorf("RTMR%d has one event more than computed, %v: %w", register, got[i].Type, ErrEventLog)
		case *want[i].SHA384 != got[i].Digest:
			return fmt.Errorf("RTMR%d event %d, %s: computed %v, the log has %v: %w", register, i, want[i].Name, want[i].SHA384, got[i].Digest, ErrEventLog)
		}
	}
	return nil
}

func (l *Prepared) qemuTDXRegions() []Region {
	if l.in.checkTDVF() != nil {
		return nil // Digest says why
	}
	var list []Region
	for _, s := range l.in.OVMF.TDX {
		name := [...]string{"firmware", "variables (CFV)", "memory map (TD HOB)", "temporary memory"}[s.Type]
		if s.Extend {
			list = append(list, content(name, s.GPA, "extended", s.Data))
			continue
		}
		list = append(list, Region{Name: name, GPA: s.GPA, SizeBytes: s.SizeBytes, Type: "added"})
	}
	return list
}
