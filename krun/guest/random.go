package guest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/hint"
)

// The processor's flags as the kernel uses them: without those that the host hid
// in CPUID, and without one whose instruction failed the kernel's test of it
// (x86_init_rdrand in arch/x86/kernel/cpu/rdrand.c).
const (
	cpuinfoPath     = "/proc/cpuinfo"
	maxCPUInfoBytes = 1 << 20
	randomFlag      = "rdrand"
)

// checkRandom refuses a machine whose kernel has nothing to seed its generator
// with that the host cannot know. All else it collects (interrupts, their times,
// jitter) the host makes or sees. With the flag 64 bytes of RDSEED or RDRAND
// are in the generator before the first program runs (random_init_early in
// drivers/char/random.c), and more with each reseeding. A confidential guest's
// kernel since 6.9 panics without (cc_random_init); this holds on older ones, too.
func checkRandom(cpuinfo string) error {
	processors := 0
	for line := range strings.Lines(cpuinfo) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		if processors++; !slices.Contains(strings.Fields(flags), randomFlag) {
			return hint.With(fmt.Errorf("processor %d has no %s: the host could foresee the guest's keys", processors, randomFlag),
				"run it on a host that does not hide RDRAND from its guests")
		}
	}
	if processors == 0 {
		return errors.New("the kernel lists no processor's flags")
	}
	return nil
}
