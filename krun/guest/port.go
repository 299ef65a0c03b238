package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// Names of the virtio-serial ports of the simulated TEE's machine.
const (
	reportPort  = "io.ccrun.report"
	controlPort = "io.ccrun.control"
)

const (
	portsClass     = "/sys/class/virtio-ports"
	reportDeadline = 60 * time.Second
)

// errNoPort is wrapped when the machine has no port of that name (yet).
var errNoPort = errors.New("no such virtio-serial port")

// findPort is the device of the port that the host calls name.
func findPort(class, name string) (string, error) {
	entries, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for _, e := range entries {
		got, err := bounded.File(filepath.Join(class, e.Name(), "name"), 256)
		if err == nil && strings.TrimSpace(string(got)) == name {
			return filepath.Join("/dev", e.Name()), nil
		}
	}
	return "", fmt.Errorf("%w: %s", errNoPort, name)
}

// openPort waits for the port at most limit: ports appear one by one after
// their driver is loaded.
func openPort(ctx context.Context, name string, limit time.Duration) (*os.File, error) {
	var f *os.File
	err := waitFor(ctx, limit, func() error {
		path, err := findPort(portsClass, name)
		if err == nil {
			f, err = os.OpenFile(path, os.O_RDWR, 0)
		}
		return err
	})
	return f, err
}

// reportDevice is the simulated TEE's side of Evidence.
type reportDevice struct {
	f   *os.File
	tee kbs.TEE
}

// OpenReportPort opens the simulated TEE's port. Its Evidence is said to be of
// tee: an agent of a test rig says what the image was built for.
func OpenReportPort(ctx context.Context, tee kbs.TEE) (Attester, error) {
	f, err := openPort(ctx, reportPort, deviceTimeout)
	if err != nil {
		return nil, hint.With(err, "the image is for the simulated TEE; run it with --runtime krun-sim")
	}
	return reportDevice{f, tee}, nil
}

func (d reportDevice) Attest(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
	if err := d.f.SetDeadline(time.Now().Add(reportDeadline)); err != nil {
		return kbs.Evidence{}, fmt.Errorf("setting deadline of %s: %w", reportPort, err)
	}
	if _, err := d.f.Write(rd[:]); err != nil {
		return kbs.Evidence{}, fmt.Errorf("writing to %s: %w", reportPort, err)
	}
	rep, certs, err := readFrame(d.f)
	if err != nil {
		return kbs.Evidence{}, fmt.Errorf("asking %s: %w", reportPort, err)
	}
	return boundEvidence(d.tee, rep, certs)
}

// Close implements io.Closer: the port is of no more use after release.
func (d reportDevice) Close() error { return d.f.Close() }
