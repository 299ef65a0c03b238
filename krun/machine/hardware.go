package machine

import (
	"strconv"

	"github.com/ccrun/ccrun/krun/measure"
)

// Hardware is what a machine is made of: processor, memory, firmware, and the
// object that makes it confidential.
type Hardware interface {
	layOut(*command, measure.Shape) error
}

// Emulated is a machine without a TEE: it protects nothing. TCG everywhere: KVM
// would make it depend on the host, and is useless on many machines without a TEE.
type Emulated struct{}

func (Emulated) layOut(c *command, s measure.Shape) error {
	// QEMU 7.2 emulates cmpxchg16b wrongly with recent kernels: random double
	// faults. AVX2 makes guest cryptography slower under TCG, not faster.
	c.arg("-M", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-avx2,-cx16")
	c.size(s)
	return nil
}

func (c *command) size(s measure.Shape) {
	c.arg("-smp", strconv.FormatUint(uint64(s.CPUs), 10), "-m", strconv.FormatUint(uint64(s.MemoryMiB), 10))
}
