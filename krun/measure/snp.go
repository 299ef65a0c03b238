package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

const pageBytes = 4096

// SNP page types (SEV Secure Nested Paging Firmware ABI, 8.17
// SNP_LAUNCH_UPDATE, table "Encodings for the PAGE_TYPE Field").
type pageType uint8

const (
	pageNormal  pageType = 1
	pageVMSA    pageType = 2
	pageZero    pageType = 3
	pageSecrets pageType = 5
	pageCPUID   pageType = 6
)

func (t pageType) String() string {
	return [...]string{1: "normal", 2: "vmsa", 3: "zero", 5: "secrets", 6: "cpuid"}[t]
}

// Guest physical addresses (libkrun src/arch/src/x86_64/layout.rs).
const (
	qbootGPA    = 0xffff0000
	initrdGPA   = 0xa00000
	cmdlineGPA  = 0x20000
	zeroPageGPA = 0x7000
	lidtGPA     = 0x0
	secretsGPA  = 0x5000
	cpuidGPA    = 0x6000
	fwDataGPA   = 0x8000
	fwDataBytes = 0x7000
	// vmsaGPA is where KVM says every VMSA is: the last page below 2^48.
	vmsaGPA = 0xfffffffff000
)

// chain is SNP's launch digest while it grows.
type chain [48]byte

// pageInfoBytes is the size of the PAGE_INFO structure (Firmware ABI 8.17.2).
const pageInfoBytes = 0x70

// update appends one page: LD = SHA-384(PAGE_INFO). contents is SHA-384 of
// the page for normal and VMSA pages and zero for all others.
func (ld *chain) update(t pageType, gpa uint64, contents *[48]byte) {
	var info [pageInfoBytes]byte
	copy(info[0x00:], ld[:])
	copy(info[0x30:], contents[:])
	binary.LittleEndian.PutUint16(info[0x60:], pageInfoBytes)
	info[0x62] = byte(t)
	// 0x63 IMI_PAGE, 0x64-0x66 VMPL3 to VMPL1 permissions, 0x67: all zero.
	binary.LittleEndian.PutUint64(info[0x68:], gpa)
	*ld = sha512.Sum384(info[:])
}

func (ld *chain) updatePages(gpa uint64, contents [][48]byte) {
	for i := range contents {
		ld.update(pageNormal, gpa+uint64(i)*pageBytes, &contents[i])
	}
}

func (ld *chain) updateEmpty(t pageType, gpa, size uint64) {
	for off := uint64(0); off < size; off += pageBytes {
		ld.update(t, gpa+off, &[48]byte{})
	}
}

// hashPages returns SHA-384 of each page of b, which is a whole number of
// pages, on all cores: the chain itself cannot be split.
func hashPages(b []byte) [][48]byte {
	out := make([][48]byte, len(b)/pageBytes)
	workers := min(runtime.GOMAXPROCS(0), 1+len(out)/64)
	var wg sync.WaitGroup
	for w := range workers {
		from, to := len(out)*w/workers, len(out)*(w+1)/workers
		wg.Go(func() {
			for i := from; i < to; i++ {
				out[i] = sha512.Sum384(b[i*pageBytes : (i+1)*pageBytes])
			}
		})
	}
	wg.Wait()
	return out
}

// pageSeries holds what machines with one firmware have in common. The zero value
// holds nothing yet.
type pageSeries struct {
	begun  *chain // after all that comes before the initrd
	initrd pageMemo
}

// firmware is the chain that begin makes, which is called once.
func (s *pageSeries) firmware(begin func(*chain)) chain {
	if s.begun == nil {
		s.begun = new(chain)
		begin(s.begun)
	}
	return *s.begun
}

// pageMemo holds the launch digest after each page of what was measured last.
type pageMemo struct {
	keeps   bool // else it holds nothing
	begun   chain
	gpa     uint64
	content []byte
	after   []chain
}

// extend is begun after the pages of b at gpa, the last filled up with zeros. The
// pages with which b begins as the one before are not hashed again.
func (m *pageMemo) extend(begun chain, gpa uint64, b []byte) chain {
	if !m.keeps {
		begun.updatePages(gpa, hashPages(wholePages(b)))
		return begun
	}
	if m.begun != begun || m.gpa != gpa {
		*m = pageMemo{keeps: true, begun: begun, gpa: gpa}
	}
	same := 0
	for end := pageBytes; end <= min(len(b), len(m.content)) && bytes.Equal(b[end-pageBytes:end], m.content[end-pageBytes:end]); end += pageBytes {
		same++
	}
	ld := begun
	if same > 0 {
		ld = m.after[same-1]
	}
	m.after = m.after[:same]
	m.content = append(m.content[:same*pageBytes], b[same*pageBytes:]...)
	m.content = append(m.content, make([]byte, (pageBytes-len(m.content)%pageBytes)%pageBytes)...)
	for _, h := range hashPages(m.content[same*pageBytes:]) {
		ld.update(pageNormal, gpa+uint64(len(m.after))*pageBytes, &h)
		m.after = append(m.after, ld)
	}
	return ld
}

// Prepared holds the hashes of a machine's inputs, so that the digests of
// many shapes and profiles cost no further pass over them.
type Prepared struct {
	in     Inputs
	before *pageSeries // of an earlier machine
	// SHA-384 of the large inputs, computed when a region first asks.
	qbootSum, kernelSum, initrdSum func() kbs.Digest

	once    sync.Once
	libkrun chain // after qboot, kernel and initrd, which every profile starts with

	qemuOnce sync.Once
	qemu     qemuPages
	qemuErr  error

	ovmfOnce          sync.Once
	ovmf              ovmfPages
	ovmfErr           error
	mrtd, mrtdTwoPass func() kbs.LaunchDigest
	kernels           sync.Map // Authenticode digests by low memory, 0 for the file as it is
	initrdFile        func() kbs.Digest
	tdDriver          func() error // Inputs.checkTDDriver
}

// Prepare checks nothing: Launch refuses to go without what a profile needs.
func Prepare(in Inputs) (*Prepared, error) {
	if len(in.Kernel) == 0 && in.OVMF == nil {
		return nil, fmt.Errorf("measuring: no kernel")
	}
	sum := func(b []byte) func() kbs.Digest {
		return sync.OnceValue(func() kbs.Digest { return kbs.Sum384(wholePages(b)) })
	}
	l := &Prepared{in: in, before: &pageSeries{}, qbootSum: sum(in.QBoot), kernelSum: sum(in.Kernel), initrdSum: sum(in.Initrd)}
	l.initrdFile = sync.OnceValue(func() kbs.Digest { return kbs.Sum384(in.Initrd) })
	l.mrtd = sync.OnceValue(func() kbs.LaunchDigest { return mrtdOf(in.OVMF.TDX, false) })
	l.mrtdTwoPass = sync.OnceValue(func() kbs.LaunchDigest { return mrtdOf(in.OVMF.TDX, true) })
	l.tdDriver = sync.OnceValue(in.checkTDDriver)
	return l, nil
}

// Launch computes the launch digest and its regions.
func (l *Prepared) Launch(p Profile, s Shape) (*Result, error) {
	if err := s.check(p); err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	regions := make(chan []Region, 1)
	go func() { regions <- l.regions(p, s) }() // beside the pass over the pages
	d, err := l.Digest(p, s)
	if err != nil {
		return nil, err
	}
	r := &Result{Profile: p, Shape: s, Digest: d, Regions: <-regions}
	if r.ACPI, err = l.in.ACPI(p); err != nil {
		return nil, err
	}
	if _, tdx := stackOf(p); tdx {
		registers, events, err := l.rtmrs(p, s)
		if err != nil {
			return nil, fmt.Errorf("measuring for %s: %w", p, err)
		}
		r.RTMRs, r.Regions = registers, append(r.Regions, events...)
	}
	return r, nil
}

// Digest is Launch without the regions, which cost one more pass over the
// inputs.
func (l *Prepared) Digest(p Profile, s Shape) (kbs.LaunchDigest, error) {
	if err := s.check(p); err != nil {
		return kbs.LaunchDigest{}, fmt.Errorf("measuring: %w", err)
	}
	if _, err := l.in.ACPI(p); err != nil {
		return kbs.LaunchDigest{}, fmt.Errorf("measuring for %s: %w", p, err)
	}
	var d kbs.LaunchDigest
	var err error
	switch p {
	case KrunfwTool, Libkrun112, Libkrun116:
		d, err = l.libkrunSNP(p, s)
	case QEMUDirect:
		d, err = l.qemuDirect(s)
	case LibkrunTDX:
		d, err = l.libkrunTDX(s)
	case QEMUSNP:
		d, err = l.qemuSNP(s)
	case QEMUTDX, QEMUTDXInitrdLast, QEMUTDX2024, QEMUTDX2023:
		d, err = l.qemuMRTD(p)
	default:
		err = fmt.Errorf("profile %q: %w", p, ErrProfile)
	}
	if err != nil {
		return kbs.LaunchDigest{}, fmt.Errorf("measuring for %s: %w", p, err)
	}
	return d, nil
}

// libkrunSNP measures in the order of libkrun's amdsnp/mod.rs: qboot, kernel,
// initrd, boot parameters, the page at 0, secrets, CPUID, firmware data, and
// one VMSA per vCPU, which KVM adds in SNP_LAUNCH_FINISH.
func (l *Prepared) libkrunSNP(p Profile, s Shape) (kbs.LaunchDigest, error) {
	if err := l.in.checkLibkrun(s); err != nil {
		return kbs.LaunchDigest{}, err
	}
	l.once.Do(func() {
		begun := l.before.firmware(func(ld *chain) {
			ld.updatePages(qbootGPA, hashPages(l.in.QBoot))
			ld.updatePages(l.in.KernelLoad, hashPages(l.in.Kernel))
		})
		l.libkrun = l.before.initrd.extend(begun, initrdGPA, l.in.Initrd)
	})
	ld := l.libkrun
	zp := zeroPage(p, s, uint32(len(l.in.Initrd)))
	ld.updatePages(zeroPageGPA, hashPages(zp[:]))
	ld.updateEmpty(pageZero, lidtGPA, pageBytes)
	ld.updateEmpty(pageSecrets, secretsGPA, pageBytes)
	ld.updateEmpty(pageCPUID, cpuidGPA, pageBytes)
	ld.updateEmpty(pageZero, fwDataGPA, fwDataBytes)
	ld.updateVMSAs(p, s.CPUs)
	return kbs.LaunchDigest(ld), nil
}

func (ld *chain) updateVMSAs(p Profile, cpus uint) {
	for i := range cpus {
		page := vmsa(p, i == 0)
		h := sha512.Sum384(page[:])
		ld.update(pageVMSA, vmsaGPA, &h)
	}
}

// checkLibkrun refuses what libkrun, qboot or KVM would refuse, so that no
// digest is computed for a machine that cannot be.
func (in *Inputs) checkLibkrun(s Shape) error {
	ram := uint64(s.MemoryMiB) << 20
	end := in.KernelLoad + uint64(len(in.Kernel))
	switch {
	case in.Cmdline != "":
		return fmt.Errorf("a command line was given, but libkrun's kernel has its own compiled in")
	case len(in.QBoot) != 0x10000:
		return fmt.Errorf("qboot of %d bytes, expected %d", len(in.QBoot), 0x10000)
	case len(in.Kernel)%pageBytes != 0 || in.KernelLoad%pageBytes != 0:
		return fmt.Errorf("kernel of %d bytes at %#x, expected multiples of %d", len(in.Kernel), in.KernelLoad, pageBytes)
	case len(in.Initrd) == 0 || len(in.Initrd)%pageBytes != 0:
		return fmt.Errorf("initrd of %d bytes, expected a multiple of %d", len(in.Initrd), pageBytes)
	case in.KernelLoad < initrdGPA || initrdGPA+uint64(len(in.Initrd)) > in.KernelLoad:
		return fmt.Errorf("initrd of %d bytes at %#x runs into the kernel at %#x: at most %d bytes",
			len(in.Initrd), uint64(initrdGPA), in.KernelLoad, in.KernelLoad-min(in.KernelLoad, initrdGPA))
	case end < in.KernelLoad || end > min(ram, gapStart):
		return fmt.Errorf("kernel ends at %#x, which %d MiB of memory do not reach", end, s.MemoryMiB)
	}
	return nil
}
