package measure

import (
	"encoding/binary"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
)

// The simulator's machine has no firmware of its own to measure with, so its
// VMM measures what it gives QEMU, in the form of an SNP launch: the kernel
// file at 16 MiB, the command line at 0x20000, a boot parameter page at
// 0x7000, the initrd file at 1 GiB, one VMSA per vCPU. The addresses only keep
// the inputs apart; QEMU puts them where it likes. Files are padded with zeros
// to whole pages, and the boot parameters hold their exact sizes, so that no
// two machines have one digest.
const (
	qemuKernelGPA = 0x1000000
	qemuInitrdGPA = 0x40000000
	// bpKernelSize is in boot_params' unused _pad9 (Linux zero-page.rst has
	// nothing from 0xeec on).
	bpKernelSize = 0xf00
)

type qemuPages struct {
	begun   chain // after kernel and initrd
	cmdline [][48]byte
}

func (l *Prepared) qemuDirect(s Shape) (kbs.LaunchDigest, error) {
	l.qemuOnce.Do(func() {
		if l.qemuErr = l.in.checkQEMU(); l.qemuErr == nil {
			begun := l.before.firmware(func(ld *chain) {
				ld.updatePages(qemuKernelGPA, hashPages(wholePages(l.in.Kernel)))
			})
			l.qemu = qemuPages{
				begun:   l.before.initrd.extend(begun, qemuInitrdGPA, l.in.Initrd),
				cmdline: hashPages(wholePages(cmdlineBytes(l.in.Cmdline))),
			}
		}
	})
	if l.qemuErr != nil {
		return kbs.LaunchDigest{}, l.qemuErr
	}
	ld := l.qemu.begun
	ld.updatePages(cmdlineGPA, l.qemu.cmdline)
	zp := qemuBootParams(&l.in, s)
	ld.updatePages(zeroPageGPA, hashPages(zp[:]))
	ld.updateVMSAs(Libkrun116, s.CPUs)
	return kbs.LaunchDigest(ld), nil
}

func (in *Inputs) checkQEMU() error {
	switch {
	case len(in.QBoot) != 0 || in.KernelLoad != 0:
		return fmt.Errorf("qboot or a load address was given, which this machine has none of")
	case len(in.Kernel) > firmware.MaxKernelBytes:
		return fmt.Errorf("kernel of %d bytes, at most %d allowed", len(in.Kernel), firmware.MaxKernelBytes)
	case len(in.Initrd) == 0 || len(in.Initrd) > firmware.MaxInitrdBytes:
		return fmt.Errorf("initrd of %d bytes, expected 1 to %d", len(in.Initrd), firmware.MaxInitrdBytes)
	case len(in.Cmdline) > firmware.MaxCmdlineBytes:
		return fmt.Errorf("command line of %d bytes, at most %d allowed", len(in.Cmdline), firmware.MaxCmdlineBytes)
	}
	return nil
}

// qemuBootParams carries everything about the machine that is not a file.
func qemuBootParams(in *Inputs, s Shape) [pageBytes]byte {
	z := zeroPage(Libkrun116, s, uint32(len(in.Initrd)))
	le := binary.LittleEndian
	le.PutUint32(z[bpRamdiskImage:], qemuInitrdGPA)
	le.PutUint32(z[bpCmdlineSize:], uint32(len(in.Cmdline)))
	le.PutUint64(z[bpKernelSize:], uint64(len(in.Kernel)))
	return z
}

func cmdlineBytes(s string) []byte { return append([]byte(s), 0) }

// wholePages pads with zeros; without need it copies nothing.
func wholePages(b []byte) []byte {
	rest := len(b) % pageBytes
	if rest == 0 {
		return b
	}
	return append(b[:len(b):len(b)], make([]byte, pageBytes-rest)...)
}
