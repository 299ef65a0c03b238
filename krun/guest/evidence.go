package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

const configfsPath = "/sys/kernel/config"

// maxEvidence bounds a report, a quote and a certificate table, each.
const maxEvidence = 64 << 10

// An Attester gets Evidence over the report data from the TEE.
type Attester interface {
	Attest(ctx context.Context, rd kbs.ReportData) (kbs.Evidence, error)
}

// FindAttester opens the report device of the identity's TEE, never what the
// host offers: a host could offer a weaker one.
func FindAttester(ctx context.Context, tee kbs.TEE) (Attester, error) {
	switch tee {
	case kbs.SNP:
		tsm, err := openTSM(kbs.SNP)
		if errors.Is(err, os.ErrNotExist) {
			return sevGuest{path: sevGuestPath}, nil
		}
		return tsm, err
	case kbs.TDX:
		tsm, err := openTSM(kbs.TDX)
		if errors.Is(err, os.ErrNotExist) {
			return nil, hint.With(errors.New("no configfs-tsm"), "the image is for TDX; the guest kernel must run in a TD and have TSM_REPORTS and TDX_GUEST_DRIVER")
		}
		return tsm, err
	case kbs.Sample:
		return OpenReportPort(ctx, kbs.Sample)
	}
	return nil, fmt.Errorf("TEE %q, expected snp, tdx or sample", tee)
}

// openTSM returns os.ErrNotExist when the kernel has no report provider:
// without one its directory is absent, or refuses entries with ENXIO.
func openTSM(tee kbs.TEE) (Attester, error) {
	client, err := linuxtsm.MakeClient()
	if err != nil {
		return nil, err
	}
	const probe = configfsPath + "/tsm/report/probe"
	err = os.Mkdir(probe, 0o700)
	if errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("configfs-tsm has no provider: %w", os.ErrNotExist)
	}
	if err == nil {
		err = os.Remove(probe)
	}
	return tsm{client: client, tee: tee}, err
}

// tsm is the kernel's vendor-neutral interface, configfs-tsm
// (Documentation/ABI/testing/configfs-tsm).
type tsm struct {
	client configfsi.Client
	tee    kbs.TEE
}

func (t tsm) Attest(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
	req := &report.Request{InBlob: rd[:]}
	provider := "tdx_guest"
	if t.tee == kbs.SNP {
		// VMPL 0 and no other: what runs at a lower privilege is not us.
		req.Privilege = &report.Privilege{Level: 0}
		req.GetAuxBlob = true
		provider = "sev_guest"
	}
	answer, err := report.Get(t.client, req)
	if err != nil {
		return kbs.Evidence{}, fmt.Errorf("asking configfs-tsm for a report: %w", err)
	}
	if got := strings.TrimSpace(answer.Provider); got != provider {
		return kbs.Evidence{}, hint.With(fmt.Errorf("configfs-tsm provider %q, expected %q", oneLine(got), provider),
			"the VM runs in another TEE than the image was built for")
	}
	return boundEvidence(t.tee, answer.OutBlob, answer.AuxBlob)
}

func boundEvidence(tee kbs.TEE, rep, certs []byte) (kbs.Evidence, error) {
	if len(rep) == 0 || len(rep) > maxEvidence {
		return kbs.Evidence{}, fmt.Errorf("report of %d bytes, expected 1 to %d", len(rep), maxEvidence)
	}
	if len(certs) > maxEvidence {
		return kbs.Evidence{}, fmt.Errorf("certificate table of %d bytes, at most %d allowed", len(certs), maxEvidence)
	}
	return kbs.Evidence{TEE: tee, Report: rep, Certificates: cutCertificates(certs)}, nil
}

// readFrame reads what the simulated TEE answers to 64 bytes of report data:
// the report and the certificate table, each behind its length (32-bit little
// endian) and at most maxEvidence bytes.
func readFrame(r io.Reader) (rep, certs []byte, err error) {
	if rep, err = readSized(r); err != nil {
		return nil, nil, fmt.Errorf("reading report: %w", err)
	}
	if certs, err = readSized(r); err != nil {
		return nil, nil, fmt.Errorf("reading certificate table: %w", err)
	}
	return rep, certs, nil
}

func readSized(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := uint32(head[0]) | uint32(head[1])<<8 | uint32(head[2])<<16 | uint32(head[3])<<24
	if n > maxEvidence {
		return nil, fmt.Errorf("length %d, at most %d allowed", n, maxEvidence)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return body, err
}
