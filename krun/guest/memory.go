package guest

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// memoryReserve is what must be left for everything else until the workload
// runs.
const memoryReserve = 16 << 20

// freeMemory is what the kernel has free, in bytes; 0 if it does not say.
func freeMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Freeram+info.Bufferram) * int64(info.Unit)
}

// residentKiB is this process's memory, the pages of its program included; 0 if
// the kernel does not say.
func residentKiB() int {
	b, err := bounded.File("/proc/self/statm", 256)
	var size, resident int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &resident)
	}
	if err != nil {
		return 0
	}
	return resident * os.Getpagesize() / 1024
}

// enoughMemory refuses to begin what would end in Go's or the kernel's "out of
// memory", of which there is no return.
func enoughMemory(need, free int64) error {
	if need+memoryReserve <= free {
		return nil
	}
	return hint.With(fmt.Errorf("opening the disk takes %d MiB of memory and %d more, the guest has %d MiB free", need>>20, memoryReserve>>20, free>>20),
		"build the image with more --memory, or without a --passphrase-file of one's own words")
}

// holdMemory keeps what is freed: the kernel would get it with all that is in
// it, and nobody would overwrite it. Some 300 KiB for each try to confirm, one a
// minute, is what that costs a guest whose server is gone.
func holdMemory(hold bool) {
	percent := 100
	if hold {
		percent = -1
	}
	debug.SetGCPercent(percent)
}
