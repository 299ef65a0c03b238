package machine

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ccrun/ccrun/krun"
)

// Monitor runs the machine of one image, as the first process of its container.
type Monitor struct {
	ImageDir string // holds the image's files
	QEMU     string // program
	TempDir  string // for writes that are not kept
	ReadOnly bool   // throw away what the guest writes
	Ports    []Port
	Warnings []string // for the container's log
	Log      *slog.Logger
	// StopTimeout is Machine's.
	StopTimeout time.Duration
}

// Run has lay read the image and say what boots, gives that machine its disk, and
// returns the exit status for the container. Signals are passed on to the workload.
func (v *Monitor) Run(signals <-chan os.Signal, lay func(image *os.Root) (*Machine, error)) (int, error) {
	for _, w := range v.Warnings {
		v.Log.Warn(w)
	}
	root, err := os.OpenRoot(v.ImageDir)
	if err != nil {
		return ExitFailure, fmt.Errorf("opening image: %w", err)
	}
	defer root.Close()
	m, err := lay(root)
	if err != nil {
		return ExitFailure, err
	}
	flag := os.O_RDWR
	if v.ReadOnly {
		flag = os.O_RDONLY
	}
	disk, err := OpenRegular(root, krun.DiskFile, flag)
	if err != nil {
		return ExitFailure, err
	}
	defer disk.Close()
	m.QEMU, m.TempDir, m.Disk, m.ThrowAway, m.Ports = v.QEMU, v.TempDir, disk, v.ReadOnly, v.Ports
	m.Log, m.StopTimeout = v.Log, v.StopTimeout
	return m.Run(signals)
}
