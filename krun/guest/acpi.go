package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ccrun/ccrun/hint"
)

// acpiPath is where the kernel shows its ACPI interpreter (acpi_init in
// drivers/acpi/bus.c makes it before it loads a table, and nothing else does).
const acpiPath = "/sys/firmware/acpi"

// checkACPI finds a kernel that ran the code of ACPI tables, which the host
// writes and nothing measures. It is too late to stop the host then; but a
// measured command line that the kernel took for something else (an unknown
// name in initcall_blacklist is ignored silently) is found before it costs a key.
func checkACPI(path string, allowed bool) error {
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case allowed:
		return nil
	}
	return hint.With(fmt.Errorf("the kernel runs the host's ACPI code: %s is there, expected none", path),
		"make the firmware anew for this kernel, with initcall_blacklist=acpi_init; or build the image with --allow-acpi")
}
