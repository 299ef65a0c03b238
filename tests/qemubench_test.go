package tests

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
)

// TestOVMFCost says what OVMF costs: the same kernel and initrd to the agent's first
// words and its end, with OVMF and without. Processor time is QEMU's, which other
// load does not change much.
func TestOVMFCost(t *testing.T) {
	if os.Getenv("CCRUN_BENCH") == "" {
		t.Skip("TestOVMFCost runs under `make bench`")
	}
	endToEnd(t)
	ovmf := filepath.Join(os.Getenv("CCRUN_RIG"), "OVMF.amdsev.fd")
	if _, err := os.Stat(ovmf); err != nil {
		need(t, err)
	}
	in, qemu := ovmfInputs(t, ovmf), qemuOf(t, "root-sid")
	gpa, page, err := in.HashPage()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		h    machine.Emulated
	}{{"direct", machine.Emulated{}}, {"through OVMF", machine.Emulated{OVMF: in.OVMF.Image, Hashes: page, HashesGPA: gpa}}} {
		before, began := children(t), time.Now()
		r := runMachine(t, &machine.Machine{QEMU: qemu, Kernel: in.Kernel, Initrd: in.Initrd, Cmdline: in.Cmdline, Shape: measure.Shape{CPUs: 1, MemoryMiB: 512}, Hardware: c.h})
		if r.err != nil || !strings.Contains(r.console, "ccrun-init") {
			t.Fatalf("%s: %v, %s", c.name, r.err, r.console)
		}
		after := children(t)
		cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
		t.Logf("%s: %.1f s, %.1f s of processor time; QEMU's largest memory so far %d MiB for a guest of 512", c.name, time.Since(began).Seconds(), cpu.Seconds(), after.Maxrss>>10)
	}
	t.Logf("measured: OVMF %d bytes at launch; by OVMF's hashes kernel %d, initrd %d bytes", len(in.OVMF.Image), len(in.Kernel), len(in.Initrd))
}

func children(t *testing.T) (u syscall.Rusage) {
	t.Helper()
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		t.Fatal(err)
	}
	return u
}
