package guest

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"

	"github.com/ccrun/ccrun/bounded"
)

// rtmr3 is a TD's RTMR 3, which is the guest's own to extend: by writing 48
// bytes (Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest, since
// Linux 6.16). Older kernels have no way to extend one.
const rtmr3 = sysfsRegister("/sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384")

// A register is a measurement register. One that the kernel does not offer is
// os.ErrNotExist.
type register interface {
	value() ([]byte, error)
	extend(event []byte) error
}

// spoilQuotes extends RTMR 3, which the server wants untouched, for good: no
// later quote of this TD gets anything. Where the kernel cannot, nothing but the
// barriers around the workload keeps it from a quote.
func spoilQuotes(r register) error {
	before, err := r.value()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading RTMR 3: %w", err)
	}
	event := sha512.Sum384([]byte("ccrun-init: the disk is open"))
	if err := r.extend(event[:]); err != nil {
		return fmt.Errorf("extending RTMR 3: %w", err)
	}
	after, err := r.value()
	if err != nil {
		return fmt.Errorf("reading RTMR 3: %w", err)
	}
	if want := sha512.Sum384(append(before, event[:]...)); !bytes.Equal(after, want[:]) {
		return fmt.Errorf("RTMR 3 is %x after it was extended, expected %x", after, want)
	}
	return nil
}

type sysfsRegister string

func (r sysfsRegister) value() ([]byte, error) { return bounded.File(string(r), sha512.Size384) }

func (r sysfsRegister) extend(event []byte) error { return os.WriteFile(string(r), event, 0) }
