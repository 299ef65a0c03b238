package measure

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
)

// QEMU's SNP launch (target/i386/sev.c, QEMU 9.1 and later): the OVMF image up
// to 4 GiB, then the ranges of its SEV metadata in their order, then one VMSA
// per vCPU, which KVM adds in SNP_LAUNCH_FINISH. Memory size is not measured.

// ovmfPages holds the page hashes of an image, which all shapes share.
type ovmfPages struct {
	chain  chain // after the image
	hashes *[pageBytes]byte
	// SHA-384 of the VMSAs, of which all but the first are alike.
	firstVMSA, otherVMSA [48]byte
}

func (l *Prepared) qemuSNP(s Shape) (kbs.LaunchDigest, error) {
	l.ovmfOnce.Do(func() { l.ovmf, l.ovmfErr = l.in.prepareOVMF() })
	if l.ovmfErr != nil {
		return kbs.LaunchDigest{}, l.ovmfErr
	}
	ld := l.ovmf.chain
	for _, section := range l.in.OVMF.SEV {
		ld.updateSection(section, l.ovmf.hashes)
	}
	ld.update(pageVMSA, vmsaGPA, &l.ovmf.firstVMSA)
	for range s.CPUs - 1 {
		ld.update(pageVMSA, vmsaGPA, &l.ovmf.otherVMSA)
	}
	return kbs.LaunchDigest(ld), nil
}

func (in *Inputs) prepareOVMF() (p ovmfPages, err error) {
	if err := in.checkOVMF(); err != nil {
		return p, err
	}
	if p.hashes, err = in.kernelHashes(); err != nil {
		return p, err
	}
	first, other := in.ovmfVMSA(true), in.ovmfVMSA(false)
	p.firstVMSA, p.otherVMSA = sha512.Sum384(first[:]), sha512.Sum384(other[:])
	p.chain.updatePages(in.OVMF.GPA(), hashPages(in.OVMF.Image))
	return p, nil
}

func (ld *chain) updateSection(s firmware.SEVSection, hashes *[pageBytes]byte) {
	if s.Type == firmware.SEVKernelHashes && hashes != nil {
		h := sha512.Sum384(hashes[:])
		ld.update(pageNormal, s.GPA, &h)
		return
	}
	ld.updateEmpty(sectionPage(s.Type), s.GPA, s.SizeBytes)
}

// sectionPage is the page type of a section whose content is not measured.
func sectionPage(t firmware.SEVSectionType) pageType {
	switch t {
	case firmware.SEVSecrets:
		return pageSecrets
	case firmware.SEVCPUID:
		return pageCPUID
	}
	return pageZero
}

func (in *Inputs) checkOVMF() error {
	switch {
	case in.OVMF == nil || len(in.OVMF.Image) == 0:
		return fmt.Errorf("no OVMF firmware")
	case len(in.OVMF.SEV) == 0:
		return fmt.Errorf("firmware has no SEV metadata, so no SNP machine boots it: take OVMF's AmdSev build")
	case in.OVMF.ResetEIP == 0:
		return fmt.Errorf("firmware has no SEV-ES reset block, which secondary vCPUs start from")
	case in.CPUSignature == 0:
		return fmt.Errorf("no CPU signature, which the first instruction finds in RDX: name the CPU model")
	case in.GuestFeatures&1 == 0:
		return fmt.Errorf("guest features %#x, expected bit 0 (SNP) set", in.GuestFeatures)
	}
	for _, s := range in.OVMF.SEV {
		if s.SizeBytes == 0 {
			return fmt.Errorf("SEV metadata has an empty section, which KVM refuses: the firmware is not for SNP")
		}
	}
	return in.checkDirectBoot()
}

// checkDirectBoot refuses parts that nothing would measure.
func (in *Inputs) checkDirectBoot() error {
	switch {
	case len(in.QBoot) != 0 || in.KernelLoad != 0:
		return fmt.Errorf("qboot or a load address was given, which this machine has none of")
	case len(in.Kernel) == 0 && (len(in.Initrd) != 0 || in.Cmdline != ""):
		return fmt.Errorf("an initrd or a command line was given without a kernel")
	case len(in.Kernel) > firmware.MaxKernelBytes || len(in.Initrd) > firmware.MaxInitrdBytes || len(in.Cmdline) > firmware.MaxCmdlineBytes:
		return fmt.Errorf("kernel of %d, initrd of %d, command line of %d bytes, at most %d, %d, %d allowed", len(in.Kernel), len(in.Initrd),
			len(in.Cmdline), firmware.MaxKernelBytes, firmware.MaxInitrdBytes, firmware.MaxCmdlineBytes)
	}
	for _, c := range []byte(in.Cmdline) {
		if c == 0 || c >= 0x80 {
			return fmt.Errorf("command line has byte %#x, expected ASCII", c)
		}
	}
	return nil
}

// The table of hashes (target/i386/sev.c, struct SevHashTable): a header with
// GUID and length, then three entries of GUID, length and SHA-256, padded to a
// multiple of 16.
const (
	hashEntryBytes = 16 + 2 + sha256.Size
	hashTableBytes = 16 + 2 + 3*hashEntryBytes
	hashAreaBytes  = (hashTableBytes + 15) &^ 15
)

// kernelHashes is the page with the hashes at the offset that the firmware
// looks at; nil without a kernel.
func (in *Inputs) kernelHashes() (*[pageBytes]byte, error) {
	if len(in.Kernel) == 0 {
		return nil, nil
	}
	at := uint64(in.OVMF.HashTableGPA)
	var section *firmware.SEVSection
	for i, s := range in.OVMF.SEV {
		if s.Type != firmware.SEVKernelHashes {
			continue
		}
		if section != nil {
			return nil, fmt.Errorf("firmware has two pages for kernel hashes, at %#x and %#x", section.GPA, s.GPA)
		}
		section = &in.OVMF.SEV[i]
	}
	if section == nil || at == 0 {
		return nil, fmt.Errorf("firmware does not check kernel hashes, so the digest would say nothing about the kernel: take OVMF's AmdSev build")
	}
	if at < section.GPA || at+hashAreaBytes > section.GPA+pageBytes {
		return nil, fmt.Errorf("firmware reads hashes at %#x, outside the page at %#x that is launched with them", at, section.GPA)
	}
	verifies, err := in.OVMF.VerifiesKernel()
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking for the code that checks kernel hashes: %w", err)
	case !verifies:
		return nil, hint.With(ErrUnverified, "take OVMF's AmdSev build, which refuses other kernels (Debian: package ovmf-amdsev, /usr/share/ovmf/OVMF.amdsev.fd)")
	}
	return in.hashPage(at - section.GPA), nil
}

// HashPage is the page that an SNP launch adds with the hashes of kernel, initrd
// and command line, and where: for a machine without SNP that boots through the
// same firmware.
func (in *Inputs) HashPage() (gpa uint64, page []byte, err error) {
	p, err := in.kernelHashes()
	if err != nil || p == nil {
		return 0, nil, err
	}
	return uint64(in.OVMF.HashTableGPA) &^ (pageBytes - 1), p[:], nil
}

// ErrUnverified reports firmware that is launched with the hashes of a kernel
// and then boots any: its digest would say nothing about the kernel.
var ErrUnverified = errors.New("firmware has a page for kernel hashes but no code that compares them, so the digest would say nothing about the kernel")

func (in *Inputs) hashPage(offset uint64) *[pageBytes]byte {
	var page [pageBytes]byte
	table := page[offset:]
	putGUID(table, "9438d606-4f22-4cc9-b479-a793d411fd21")
	binary.LittleEndian.PutUint16(table[16:], hashTableBytes)
	for i, e := range []struct {
		guid string
		data []byte
	}{
		{"97d02dd8-bd20-4c94-aa78-e7714d36ab2a", cmdlineBytes(in.Cmdline)},
		{"44baf731-3a2f-4bd7-9af1-41e29169781d", in.Initrd},
		{"4de79437-abd2-427f-b835-d5b172d2045b", in.Kernel},
	} {
		entry := table[18+i*hashEntryBytes:]
		putGUID(entry, e.guid)
		binary.LittleEndian.PutUint16(entry[16:], hashEntryBytes)
		sum := sha256.Sum256(e.data)
		copy(entry[18:], sum[:])
	}
	return &page
}

// putGUID writes a GUID as EFI does: the first three fields little-endian.
func putGUID(to []byte, text string) {
	u := uuid.MustParse(text) // of constants only
	binary.LittleEndian.PutUint32(to, binary.BigEndian.Uint32(u[:]))
	binary.LittleEndian.PutUint16(to[4:], binary.BigEndian.Uint16(u[4:]))
	binary.LittleEndian.PutUint16(to[6:], binary.BigEndian.Uint16(u[6:]))
	copy(to[8:16], u[8:])
}

// ovmfVMSA is the save area under QEMU on a mainline host kernel (6.11 and
// later): QEMU's reset state, in which, unlike under libkrun, segments are
// marked accessed, the task register is busy, and RDX has the CPU's signature.
func (in *Inputs) ovmfVMSA(bootCPU bool) [pageBytes]byte {
	v := vmsaES(false)
	le := binary.LittleEndian
	eip := uint32(0xfffffff0)
	if !bootCPU {
		eip = in.OVMF.ResetEIP
	}
	le.PutUint16(v[0x12:], 0x9b)                   // cs attributes
	le.PutUint64(v[0x18:], uint64(eip&0xffff0000)) // cs base
	le.PutUint16(v[0x22:], 0x93)                   // ss attributes
	le.PutUint16(v[0x92:], 0x8b)                   // tr attributes
	le.PutUint64(v[0x178:], uint64(eip&0xffff))    // rip
	le.PutUint64(v[0x310:], uint64(in.CPUSignature))
	le.PutUint64(v[0x3b0:], in.GuestFeatures)
	le.PutUint32(v[0x408:], 0x1f80) // mxcsr
	le.PutUint16(v[0x410:], 0x37f)  // x87 fcw
	return v
}

func (l *Prepared) qemuSNPRegions(s Shape) []Region {
	in := &l.in
	if in.checkOVMF() != nil {
		return nil // Digest says why
	}
	list := []Region{content("firmware", in.OVMF.GPA(), pageNormal.String(), in.OVMF.Image)}
	hashes, _ := in.kernelHashes()
	for _, section := range in.OVMF.SEV {
		if section.Type == firmware.SEVKernelHashes && hashes != nil {
			list = append(list, content("kernel hashes", section.GPA, pageNormal.String(), hashes[:]))
			continue
		}
		list = append(list, Region{Name: sectionName(section.Type), GPA: section.GPA, SizeBytes: section.SizeBytes, Type: sectionPage(section.Type).String()})
	}
	for i := range s.CPUs {
		v := in.ovmfVMSA(i == 0)
		list = append(list, content("vmsa", vmsaGPA, pageVMSA.String(), v[:]))
	}
	return list
}

func sectionName(t firmware.SEVSectionType) string {
	switch t {
	case firmware.SEVSecrets:
		return "secrets"
	case firmware.SEVCPUID:
		return "cpuid"
	case firmware.SEVCallingArea:
		return "svsm calling area"
	case firmware.SEVKernelHashes:
		return "kernel hashes"
	}
	return "firmware memory"
}
