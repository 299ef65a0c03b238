package machine

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/measure"
)

// Hardware is what a machine is made of: processor, memory, firmware, and the
// object that makes it confidential. Firmware is given as the bytes that were
// looked at: QEMU boots these, whatever becomes of the file.
type Hardware interface {
	layOut(*command, measure.Shape) error
}

// Emulated is a machine without a TEE: it protects nothing. TCG everywhere: KVM
// would make it depend on the host, and is useless on many machines without a TEE.
type Emulated struct {
	// OVMF is what boots the kernel in place of QEMU's own firmware, as in the
	// machines with a TEE. Empty: QEMU's.
	OVMF []byte
	// Hashes is measure.Inputs.HashPage's page for OVMF that verifies kernels, and
	// HashesGPA its address: with SNP, QEMU puts it there itself.
	Hashes    []byte
	HashesGPA uint64
}

func (h Emulated) layOut(c *command, s measure.Shape) error {
	// QEMU 7.2 emulates cmpxchg16b wrongly with recent kernels: random double
	// faults. AVX2 makes guest cryptography slower under TCG, not faster.
	c.arg("-M", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-avx2,-cx16")
	c.size(s)
	if len(h.OVMF) == 0 {
		return nil
	}
	if err := c.bios(h.OVMF); err != nil || len(h.Hashes) == 0 {
		return err
	}
	page, err := c.sealed("hashes", h.Hashes)
	if err != nil {
		return err
	}
	c.arg("-device", fmt.Sprintf("loader,file=%s,addr=%#x,force-raw=on", page, h.HashesGPA))
	return nil
}

// snpPolicy is the guest's policy: bit 17 must be set, bit 16 allows SMT. Bits
// that let the host look in (19, DEBUG) or take the guest away (18) are clear.
const snpPolicy = 1<<17 | 1<<16

// reducedPhysBits is what SEV takes of the guest's physical addresses; QEMU wants
// at least the C-bit's one.
const reducedPhysBits = 1

// SNP is a machine of SEV-SNP's.
type SNP struct {
	OVMF []byte
	CPU  string // QEMU's model, whose signature is measured
	// HostData goes into every report: SHA-256 of the identity.
	HostData [sha256.Size]byte
	CBit     uint // position of the C-bit in a page table entry: HostCBit
}

// snpObject is QEMU's sev-snp-guest (qapi/qom.json, SevSnpGuestProperties).
type snpObject struct {
	Type            string `json:"qom-type"`
	ID              string `json:"id"`
	CBitPos         uint   `json:"cbitpos"`
	ReducedPhysBits uint   `json:"reduced-phys-bits"`
	Policy          uint64 `json:"policy"`
	KernelHashes    bool   `json:"kernel-hashes"`
	HostData        []byte `json:"host-data"`
}

func (h SNP) layOut(c *command, s measure.Shape) error {
	switch {
	case h.HostData == [sha256.Size]byte{}:
		return errors.New("laying out an SNP machine: no HOST_DATA")
	case h.CBit < 32 || h.CBit > 63:
		return fmt.Errorf("laying out an SNP machine: C-bit at %d, expected 32 to 63", h.CBit)
	case h.CPU == "" || strings.HasPrefix(h.CPU, "0x"): // which measure takes for a signature
		return fmt.Errorf("laying out an SNP machine: CPU %q, expected a model of QEMU's", h.CPU)
	}
	if _, err := measure.ParseCPU(h.CPU); err != nil {
		return fmt.Errorf("laying out an SNP machine: %w", err)
	}
	c.arg("-machine", "q35,confidential-guest-support=tee,smm=off,vmport=off", "-accel", "kvm", "-cpu", h.CPU)
	c.size(s)
	if err := c.bios(h.OVMF); err != nil {
		return err
	}
	return c.object(snpObject{Type: objectOf(kbs.SNP), ID: teeID, CBitPos: h.CBit, ReducedPhysBits: reducedPhysBits,
		Policy: snpPolicy, KernelHashes: true, HostData: h.HostData[:]})
}

// TDX is a machine of TDX's: a TD.
type TDX struct {
	OVMF []byte
	// ConfigID is MRCONFIGID, in every quote: SHA-384 of the identity.
	ConfigID kbs.Digest
	// QuoteSocket is where QEMU finds the host's quote generation service.
	QuoteSocket string
}

// tdxObject is QEMU's tdx-guest (qapi/qom.json, TdxGuestProperties). What is left
// out is QEMU's default: SEPT_VE_DISABLE set, DEBUG clear.
type tdxObject struct {
	Type        string        `json:"qom-type"`
	ID          string        `json:"id"`
	MRConfigID  []byte        `json:"mrconfigid"`
	QuoteSocket socketAddress `json:"quote-generation-socket"`
}

type socketAddress struct {
	Type string `json:"type"`
	Path string `json:"path"`
}

// maxSocketPath is sun_path's length without its NUL (unix(7)).
const maxSocketPath = 107

func (h TDX) layOut(c *command, s measure.Shape) error {
	switch {
	case h.ConfigID.IsZero():
		return errors.New("laying out a TD: no MRCONFIGID")
	case h.QuoteSocket == "" || len(h.QuoteSocket) > maxSocketPath:
		return fmt.Errorf("laying out a TD: quote socket %q, expected a path of 1 to %d bytes", h.QuoteSocket, maxSocketPath)
	}
	c.arg("-machine", "q35,kernel-irqchip=split,confidential-guest-support=tee,smm=off,vmport=off", "-accel", "kvm", "-cpu", "host")
	c.size(s)
	if err := c.bios(h.OVMF); err != nil {
		return err
	}
	return c.object(tdxObject{Type: objectOf(kbs.TDX), ID: teeID, MRConfigID: h.ConfigID[:], QuoteSocket: socketAddress{"unix", h.QuoteSocket}})
}

// teeID is the TEE object's name on the command line.
const teeID = "tee"

// object adds an object, as JSON, in which no value can end and begin another.
func (c *command) object(o any) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("laying out the TEE's object: %w", err)
	}
	c.arg("-object", string(b))
	return nil
}

// biosAlign is what QEMU wants a firmware's size to be a multiple of.
const biosAlign = 64 << 10

// bios has QEMU boot from image. It is no flash: a TD has none, and no byte of it
// can be written.
func (c *command) bios(image []byte) error {
	if len(image) == 0 || len(image)%biosAlign != 0 {
		return fmt.Errorf("firmware of %d bytes, expected a multiple of %d", len(image), biosAlign)
	}
	f, err := c.sealed("firmware", image)
	if err == nil {
		c.arg("-bios", f)
	}
	return err
}

// sealed gives content to QEMU in a memory file that belongs to c, and returns
// its path there.
func (c *command) sealed(name string, content []byte) (string, error) {
	f, err := sealed(name, content)
	if err != nil {
		return "", err
	}
	c.own = append(c.own, f)
	return c.path(f), nil
}

func (c *command) size(s measure.Shape) {
	c.arg("-smp", strconv.FormatUint(uint64(s.CPUs), 10), "-m", strconv.FormatUint(uint64(s.MemoryMiB), 10))
}
