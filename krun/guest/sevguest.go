package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/google/go-sev-guest/client/linuxabi"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

const sevGuestPath = "/dev/sev-guest"

// snpReportBytes is the size of ATTESTATION_REPORT (SEV-SNP Firmware ABI,
// 56860, table "ATTESTATION_REPORT").
const snpReportBytes = 1184

// maxThrottled bounds how often a request is repeated after EBUSY or EAGAIN,
// which a host produces when it throttles guest requests.
const maxThrottled = 20

// sevGuest is the sev-guest driver's ioctl interface
// (Documentation/virt/coco/sev-guest.rst), for kernels without configfs-tsm.
type sevGuest struct{ path string }

func (s sevGuest) Attest(ctx context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return kbs.Evidence{}, hint.With(err, "the image is for SEV-SNP; the VM must run as an SNP guest (host: `ccrun doctor`)")
	}
	defer func() { _ = f.Close() }()
	rep, certs, err := snpExtendedReport(ctx, f, rd)
	if err != nil { // a host without certificates is no reason to fail
		rep, err = snpReport(ctx, f, rd)
		certs = nil
	}
	if err != nil {
		return kbs.Evidence{}, fmt.Errorf("asking %s for a report: %w", s.path, err)
	}
	return boundEvidence(kbs.SNP, rep, certs)
}

// snpReport is SNP_GET_REPORT at VMPL 0.
func snpReport(ctx context.Context, f *os.File, rd kbs.ReportData) ([]byte, error) {
	req := &linuxabi.SnpReportReqABI{ReportData: rd}
	resp := &linuxabi.SnpReportRespABI{}
	if err := snpRequest(ctx, f, linuxabi.IocSnpGetReport, &linuxabi.SnpUserGuestRequest{ReqData: req, RespData: resp}); err != nil {
		return nil, err
	}
	return cutSNPReport(resp)
}

// snpExtendedReport is SNP_GET_EXT_REPORT at VMPL 0, with the certificate
// table that the host's administrator provided.
func snpExtendedReport(ctx context.Context, f *os.File, rd kbs.ReportData) (rep, certs []byte, err error) {
	// The kernel wants whole pages.
	req := &linuxabi.SnpExtendedReportReq{Data: linuxabi.SnpReportReqABI{ReportData: rd}, Certs: make([]byte, maxEvidence), CertsLength: maxEvidence}
	resp := &linuxabi.SnpReportRespABI{}
	if err := snpRequest(ctx, f, linuxabi.IocSnpGetExtendedReport, &linuxabi.SnpUserGuestRequest{ReqData: req, RespData: resp}); err != nil {
		return nil, nil, err
	}
	if rep, err = cutSNPReport(resp); err != nil {
		return nil, nil, err
	}
	return rep, req.Certs, nil
}

func cutSNPReport(resp *linuxabi.SnpReportRespABI) ([]byte, error) {
	if resp.ReportSize != snpReportBytes {
		return nil, fmt.Errorf("report of %d bytes, expected %d", resp.ReportSize, snpReportBytes)
	}
	return append([]byte(nil), resp.Data[:snpReportBytes]...), nil
}

// keyGUIDs are the entries of a certificate table that the server reads: VCEK
// and VLEK, which alone differ from chip to chip. The chain above them it has
// itself, and would believe no other. Hosts write them in either byte order.
var keyGUIDs = [...][16]byte{
	{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd},
	{0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1},
	{0x8d, 0x75, 0xda, 0x63, 0x64, 0xe6, 0x64, 0x45, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd},
	{0xc2, 0x4b, 0x07, 0xa8, 0x5a, 0xa2, 0x3e, 0x48, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1},
}

// tableEntry is the size of a certificate table's entry: GUID, offset, length.
const tableEntry = 24

// cutCertificates makes of a GHCB certificate table (GHCB specification 56421,
// section 4.1.8.1; ended by a zero GUID) one of the keyGUIDs' entries, which is
// at most as long. A table that makes no sense is dropped: it is a hint from
// the host, and the server has its own Endorsements.
func cutCertificates(table []byte) []byte {
	var head, keys []byte
	for at := 0; at+tableEntry <= len(table); at += tableEntry {
		e := table[at : at+tableEntry]
		guid := [16]byte(e)
		first := uint64(binary.LittleEndian.Uint32(e[16:]))
		stop := first + uint64(binary.LittleEndian.Uint32(e[20:]))
		switch {
		case guid == [16]byte{}:
			return joinTable(head, keys)
		case stop > uint64(len(table)):
			return nil
		case !slices.Contains(keyGUIDs[:], guid):
			continue
		case len(head)+len(keys)+2*tableEntry+int(stop-first) > len(table): // entries that overlap
			return nil
		}
		head = append(head, e...)
		keys = append(keys, table[first:stop]...)
	}
	return nil
}

// joinTable puts entries, whose offsets it corrects, and what they are of
// behind one another.
func joinTable(head, keys []byte) []byte {
	if len(head) == 0 {
		return nil
	}
	offset := uint32(len(head) + tableEntry)
	for e := range slices.Chunk(head, tableEntry) {
		binary.LittleEndian.PutUint32(e[16:], offset)
		offset += binary.LittleEndian.Uint32(e[20:])
	}
	return slices.Concat(head, make([]byte, tableEntry), keys)
}

// snpRequest issues one guest request, again while the host throttles.
func snpRequest(ctx context.Context, f *os.File, command uintptr, req *linuxabi.SnpUserGuestRequest) error {
	for try := 0; ; try++ {
		abi := req.ABI()
		errno := ioctl(f, command, abi.Pointer())
		if err := abi.Finish(req); err != nil {
			return err
		}
		if errno == 0 {
			return nil
		}
		if try == maxThrottled || (!errors.Is(errno, unix.EAGAIN) && !errors.Is(errno, unix.EBUSY) && !errors.Is(errno, unix.EINTR)) {
			return fmt.Errorf("%w (firmware error %#x)", errno, req.FwErr)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

func ioctl(f *os.File, command uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(arg))
	return errno
}
