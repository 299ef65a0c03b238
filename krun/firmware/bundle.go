// Package firmware reads, builds and inspects what a workload's machine boots
// from: the libkrunfw library (qboot, kernel, initrd) or a directory of loose
// files, and the initrd archives that ccrun adds. Everything it reads is
// bounded and nothing it reads is ever executed.
package firmware

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// Kinds of firmware.
const (
	// KindLibkrun boots through qboot as libkrun's TEE builds do.
	KindLibkrun = "libkrun"
	// KindQEMUDirect is the machine of the simulator: QEMU's -kernel, no qboot.
	KindQEMUDirect = "qemu-direct"
)

// Limits on firmware, in bytes. The kernel limit leaves room below the
// 3328 MiB gap and is far over any kernel that libkrun boots.
const (
	PageBytes = 4096
	// BundleAlign is what upstream's bin2cbundle.py pads every payload to.
	BundleAlign = 64 << 10
	// QBootBytes is the only size libkrun maps at 0xffff0000.
	QBootBytes = 64 << 10
	// MaxKernelBytes bounds a kernel.
	MaxKernelBytes = 256 << 20
	// MaxInitrdBytes bounds an initrd of any kind.
	MaxInitrdBytes = 256 << 20
	// MaxLibkrunInitrdBytes is the room between 0xa00000, where libkrun puts
	// the initrd, and 0x1000000, where its kernel starts.
	MaxLibkrunInitrdBytes = 6 << 20
	// MaxLibraryBytes bounds a library file.
	MaxLibraryBytes = 512 << 20
	// MaxCmdlineBytes bounds a kernel command line without its NUL (Linux
	// COMMAND_LINE_SIZE on x86-64 is 2048).
	MaxCmdlineBytes = 2047
)

// Bundle is firmware without a workload: what a host has installed.
type Bundle struct {
	Kind        string
	Path        string // where it was loaded from, for messages
	QBoot       []byte // libkrun only: exactly QBootBytes
	Kernel      []byte // as loaded into guest memory (libkrun), or a bzImage file
	KernelLoad  uint64 // guest physical address, libkrun only
	KernelEntry uint64 // 0 from a library of the 2-argument ABI; not used by TEE boots
	// InitrdBase goes in front of the workload's initrd: kernel modules, for a
	// modular kernel. Empty for libkrun.
	InitrdBase []byte
	// Initrd is the initrd a libkrunfw library carries itself, which
	// BuildLibrary replaces. Empty for qemu-direct.
	Initrd  []byte
	Cmdline string // QEMU's machines only; libkrun's is compiled into the kernel
	// OVMF is the UEFI firmware that boots the kernel, and CPU, for SNP, the model
	// of QEMU's on which it does: ovmf only.
	OVMF *OVMF
	CPU  string
	// Digest is SHA-256 over the inputs that a workload shares with every
	// other on this firmware: kind, qboot, kernel, load address, initrd base,
	// command line and, with OVMF, its file and the CPU model, each behind its
	// length. The initrd is not among them.
	Digest [32]byte
}

// loadHint is what firmware looks like.
const loadHint = "firmware is libkrunfw-sev.so.5, of libkrunfw built with SEV=1, or for the simulator the directory that `ccrun-sim firmware` makes"

// Load reads firmware from path: a libkrunfw-sev.so or -tdx.so file, or a
// directory with firmware.json.
func Load(path string) (*Bundle, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, hint.With(fmt.Errorf("loading firmware: %w", err), loadHint)
	}
	var b *Bundle
	if info.IsDir() {
		b, err = loadDir(path)
	} else {
		var file []byte
		if file, err = bounded.Regular(path, MaxLibraryBytes); err == nil {
			b, err = ParseLibrary(file)
		}
	}
	if err != nil {
		return nil, hint.With(fmt.Errorf("loading firmware %s: %w", path, err), loadHint)
	}
	b.Path = path
	return b, nil
}

// seal checks b's members against each other and sets its Digest.
func (b *Bundle) seal() error {
	var err error
	switch b.Kind {
	case KindLibkrun:
		err = b.checkLibkrun()
	case KindQEMUDirect:
		err = b.checkQEMUDirect()
	case KindOVMF:
		err = b.checkOVMF()
	default:
		err = fmt.Errorf("firmware kind %q, expected %q, %q or %q", b.Kind, KindLibkrun, KindQEMUDirect, KindOVMF)
	}
	if err != nil {
		return err
	}
	parts := [][]byte{
		[]byte("ccrun firmware v1"), []byte(b.Kind), b.QBoot, b.Kernel,
		binary.BigEndian.AppendUint64(nil, b.KernelLoad), b.InitrdBase, []byte(b.Cmdline),
	}
	if b.OVMF != nil {
		parts = append(parts, b.OVMF.Image, []byte(b.CPU))
	}
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	b.Digest = [32]byte(h.Sum(nil))
	return nil
}

func (b *Bundle) checkLibkrun() error {
	end := b.KernelLoad + uint64(len(b.Kernel))
	switch {
	case len(b.QBoot) != QBootBytes:
		return fmt.Errorf("qboot of %d bytes, expected %d", len(b.QBoot), QBootBytes)
	case len(b.Kernel) == 0 || len(b.Kernel) > MaxKernelBytes || len(b.Kernel)%PageBytes != 0:
		return fmt.Errorf("kernel of %d bytes, expected a multiple of %d up to %d", len(b.Kernel), PageBytes, MaxKernelBytes)
	case b.KernelLoad%PageBytes != 0 || b.KernelLoad < 1<<20 || end < b.KernelLoad || end > 0xd0000000:
		return fmt.Errorf("kernel load address %#x, expected a page between 1 MiB and the 3328 MiB gap", b.KernelLoad)
	case len(b.Initrd)%PageBytes != 0 || len(b.Initrd) > MaxInitrdBytes:
		return fmt.Errorf("initrd of %d bytes, expected a multiple of %d up to %d", len(b.Initrd), PageBytes, MaxInitrdBytes)
	case len(b.InitrdBase) != 0 || b.Cmdline != "" || b.OVMF != nil || b.CPU != "":
		return errors.New("libkrun takes no initrd base, no command line, no OVMF and no CPU model")
	}
	return nil
}

func (b *Bundle) checkQEMUDirect() error {
	if b.OVMF != nil || b.CPU != "" {
		return errors.New("qemu-direct takes no OVMF and no CPU model")
	}
	return b.checkLoose()
}

// maxCPUName bounds the name of a CPU model.
const maxCPUName = 64

// checkOVMF leaves it to whoever measures whether the firmware fits a TEE.
func (b *Bundle) checkOVMF() error {
	if b.OVMF == nil || len(b.OVMF.Image) == 0 {
		return errors.New("firmware of kind ovmf without OVMF")
	}
	odd := func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	if len(b.CPU) > maxCPUName || strings.ContainsFunc(b.CPU, odd) {
		return fmt.Errorf("CPU model %.80q, expected the name of one of QEMU's, as in EPYC-v4", b.CPU)
	}
	return b.checkLoose()
}

// checkLoose is for machines that boot from loose files.
func (b *Bundle) checkLoose() error {
	switch {
	case len(b.QBoot) != 0 || b.KernelLoad != 0 || b.KernelEntry != 0:
		return fmt.Errorf("%s takes no qboot and no load address", b.Kind)
	case len(b.Kernel) == 0 || len(b.Kernel) > MaxKernelBytes:
		return fmt.Errorf("kernel of %d bytes, expected up to %d", len(b.Kernel), MaxKernelBytes)
	case len(b.InitrdBase) > MaxInitrdBytes:
		return fmt.Errorf("initrd base of %d bytes, at most %d allowed", len(b.InitrdBase), MaxInitrdBytes)
	case len(b.InitrdBase)%4 != 0:
		return fmt.Errorf("initrd base of %d bytes, expected a multiple of 4, which the next archive needs", len(b.InitrdBase))
	}
	return checkCmdline(b.Cmdline)
}

func checkCmdline(s string) error {
	if len(s) > MaxCmdlineBytes {
		return fmt.Errorf("command line of %d bytes, at most %d allowed", len(s), MaxCmdlineBytes)
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("command line has byte %#02x, expected printable ASCII", c)
		}
	}
	return nil
}

// BootInitrd returns the exact bytes that the machine's VMM loads as initrd
// when a workload brings initrd (what ComposeInitrd returned): padded as
// BuildLibrary pads for libkrun, behind the kernel modules for QEMU's machines.
// With an empty initrd it is the firmware's own.
func (b *Bundle) BootInitrd(initrd []byte) ([]byte, error) {
	if len(initrd)%BundleAlign == 0 && len(initrd) > 0 && b.Kind == KindLibkrun {
		return initrd, CheckLibkrunInitrd(initrd)
	}
	return b.AppendBootInitrd(nil, initrd)
}

// AppendBootInitrd is BootInitrd in the room behind to, if there is enough.
func (b *Bundle) AppendBootInitrd(to, initrd []byte) ([]byte, error) {
	switch {
	case b.Kind != KindLibkrun && len(b.InitrdBase)+len(initrd) > MaxInitrdBytes:
		return nil, fmt.Errorf("initrd of %d bytes, at most %d allowed", len(b.InitrdBase)+len(initrd), MaxInitrdBytes)
	case b.Kind != KindLibkrun:
		return append(append(slices.Grow(to, len(b.InitrdBase)+len(initrd)), b.InitrdBase...), initrd...), nil
	case len(initrd) == 0 && len(b.Initrd) == 0:
		return nil, errors.New("the firmware carries no initrd and none was given")
	case len(initrd) == 0:
		return append(to, b.Initrd...), CheckLibkrunInitrd(b.Initrd)
	}
	if err := CheckLibkrunInitrd(initrd); err != nil {
		return nil, err
	}
	return zeros(append(slices.Grow(to, len(initrd)+BundleAlign), initrd...), len(to), BundleAlign), nil
}

// padTo returns b with zeros up to a multiple of align; b itself if it is one.
func padTo(b []byte, align int) []byte {
	rest := len(b) % align
	if rest == 0 {
		return b
	}
	out := make([]byte, len(b)+align-rest)
	copy(out, b)
	return out
}
