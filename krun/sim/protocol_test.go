package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// pipe is a port with canned input.
type pipe struct {
	io.Reader
	bytes.Buffer
}

func (p *pipe) Read(b []byte) (int, error) { return p.Reader.Read(b) }

// readAnswer is the guest's side of the frame, written from its description.
func readAnswer(r io.Reader) (report, certs []byte, err error) {
	for _, part := range []*[]byte{&report, &certs} {
		var n uint32
		if err := binary.Read(r, binary.LittleEndian, &n); err != nil {
			return nil, nil, err
		}
		if n > math.MaxUint16 {
			return nil, nil, errors.New("too long")
		}
		*part = make([]byte, n)
		if _, err := io.ReadFull(r, *part); err != nil {
			return nil, nil, err
		}
	}
	return report, certs, nil
}

// echoSigner signs by repeating what it was asked to sign.
func echoSigner(d kbs.ReportData) (kbs.Evidence, error) {
	return kbs.Evidence{TEE: kbs.Sample, Report: bytes.Clone(d[:]), Certificates: []byte("table")}, nil
}

func TestServeReports(t *testing.T) {
	first, second := bytes.Repeat([]byte{1}, 64), bytes.Repeat([]byte{2}, 64)
	requests := bytes.Join([][]byte{first, second, []byte("half a request")}, nil)
	p := &pipe{Reader: bytes.NewReader(requests)}
	if err := serveReports(p, echoSigner); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]byte{first, second} {
		report, certs, err := readAnswer(&p.Buffer)
		if err != nil || !bytes.Equal(report, want) || string(certs) != "table" {
			t.Fatalf("report %x, certificates %q, %v", report, certs, err)
		}
	}
	if p.Len() != 0 {
		t.Errorf("%d bytes more than two answers: half a request was answered", p.Len())
	}
}

func TestServeReportsEndsWithTheSigner(t *testing.T) {
	broken := errors.New("no key")
	p := &pipe{Reader: bytes.NewReader(make([]byte, 128))}
	err := serveReports(p, func(kbs.ReportData) (kbs.Evidence, error) { return kbs.Evidence{}, broken })
	if !errors.Is(err, broken) || p.Len() != 0 {
		t.Errorf("%v, %d bytes answered", err, p.Len())
	}
}

func FuzzReportFrames(f *testing.F) {
	f.Add(make([]byte, 64), []byte("certs"))
	f.Add(make([]byte, 130), []byte{})
	f.Fuzz(func(t *testing.T, requests, table []byte) {
		p := &pipe{Reader: bytes.NewReader(requests)}
		sign := func(d kbs.ReportData) (kbs.Evidence, error) {
			return kbs.Evidence{Report: bytes.Clone(d[:]), Certificates: table}, nil
		}
		if err := serveReports(p, sign); err != nil {
			t.Fatal(err)
		}
		for n := range len(requests) / 64 {
			report, certs, err := readAnswer(&p.Buffer)
			if err != nil || !bytes.Equal(report, requests[n*64:n*64+64]) || !bytes.Equal(certs, table) {
				t.Fatalf("answer %d: %v", n, err)
			}
		}
		if p.Len() != 0 {
			t.Fatal("data after the last answer")
		}
	})
}
