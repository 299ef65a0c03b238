package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// usualCBit is the C-bit's position on every processor with SNP so far. QEMU
// compares what it is told with the processor's.
const usualCBit = 51

// HostCBit is the position of the C-bit in this host's page tables; the usual one
// where the processor does not say, on which QEMU then says what is missing.
func HostCBit() uint {
	if at := hostCBit(); at != 0 {
		return at
	}
	return usualCBit
}

// ErrMemory reports a host that has not the memory that a machine takes.
var ErrMemory = errors.New("not enough memory on this host")

const (
	meminfoPath     = "/proc/meminfo"
	maxMeminfoBytes = 64 << 10
)

// CheckMemory wants the host to have memoryMiB, and what the monitor takes, at
// once: a guest's private memory cannot be swapped out (guest_memfd), so that a
// host which gives more than it has kills somebody later.
func CheckMemory(memoryMiB uint) error {
	b, err := bounded.File(meminfoPath, maxMeminfoBytes)
	if err != nil {
		return fmt.Errorf("looking for free memory: %w", err)
	}
	return checkMemory(string(b), memoryMiB)
}

func checkMemory(meminfo string, memoryMiB uint) error {
	have, err := availableMiB(meminfo)
	if err != nil {
		return fmt.Errorf("looking for free memory: %w", err)
	}
	if need := uint64(memoryMiB) + vmmMemoryBytes>>20; have < need {
		return hint.With(fmt.Errorf("%w: %d MiB are available, expected %d for the guest and %d for its monitor", ErrMemory, have, memoryMiB, vmmMemoryBytes>>20),
			"stop other machines: a confidential guest's memory cannot be swapped out; or build the image with less --memory")
	}
	return nil
}

// availableMiB reads MemAvailable of proc(5).
func availableMiB(meminfo string) (uint64, error) {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "MemAvailable:" && f[2] == "kB" {
			n, err := strconv.ParseUint(f[1], 10, 64)
			return n >> 10, err
		}
	}
	return 0, errors.New("no line MemAvailable in " + meminfoPath)
}

// quoteTimeout bounds how long a quote generation service may take to be there.
const quoteTimeout = 5 * time.Second

// ErrQuotes reports a host without a quote generation service.
var ErrQuotes = errors.New("no quote generation service")

// CheckQuotes wants somebody to listen at path: a TD whose host makes no quotes
// boots, and waits for its key in vain.
func CheckQuotes(path string) error {
	next := "start Intel's qgsd (package tdx-qgs of the DCAP repository) with a unix socket there, or name another in /etc/ccrun/krun.json: {\"quote_socket\":\"/path\"}"
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hint.With(fmt.Errorf("%w: %s does not exist", ErrQuotes, path), "%s", next)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrQuotes, err)
	case info.Mode().Type() != fs.ModeSocket:
		return hint.With(fmt.Errorf("%w: %s has mode %v, expected a socket", ErrQuotes, path, info.Mode()), "%s", next)
	}
	c, err := net.DialTimeout("unix", path, quoteTimeout)
	if err != nil {
		return hint.With(fmt.Errorf("%w: connecting to %s: %w", ErrQuotes, path, err), "%s", next)
	}
	return c.Close()
}
