package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func join(ports []Port) string {
	var all []string
	for _, p := range ports {
		all = append(all, p.String())
	}
	return strings.Join(all, " ")
}

func TestForwards(t *testing.T) {
	for s, want := range map[string]string{
		"":                         "",
		"80/tcp":                   "80/tcp",
		"80/tcp,53/udp":            "80/tcp 53/udp",
		"80/tcp 53/udp":            "80/tcp 53/udp",
		" 80/tcp, 80/udp ":         "80/tcp 80/udp",
		"80/tcp,80/tcp":            "80/tcp",
		"65535/tcp,1/udp,2/udp":    "65535/tcp 1/udp 2/udp",
		strings.Repeat(" ", 1<<20): "",
	} {
		ports, warnings := forwards(splitPorts(s))
		if join(ports) != want || len(warnings) != 0 {
			t.Errorf("%.40q: %v %q", s, ports, warnings)
		}
	}
	for _, s := range []string{"80", "0/tcp", "65536/tcp", "080/tcp", "+80/tcp", "80/sctp", "80-90/tcp",
		"8080:80/tcp", "80/tcp/", "guestfwd=tcp:1.2.3.4:1-cmd:id", "80/TCP"} {
		if ports, warnings := forwards([]string{s, "7/tcp"}); join(ports) != "7/tcp" || len(warnings) != 1 {
			t.Errorf("%.40q: %v %q", s, ports, warnings)
		}
	}
	var many []string
	for i := range 2000 {
		many = append(many, Port{Number: uint16(i + 1), Protocol: "tcp"}.String())
	}
	if ports, warnings := forwards(many); len(ports) != maxPorts || len(warnings) != 1 || len(warnings[0]) > 400 {
		t.Errorf("%d of many ports, %q", len(ports), warnings)
	}
}

func FuzzForwards(f *testing.F) {
	f.Add("80/tcp,53/udp")
	f.Add("0/tcp x")
	f.Fuzz(func(t *testing.T, s string) {
		ports, _ := forwards(splitPorts(s))
		for _, p := range ports {
			if p.validate() != nil {
				t.Fatalf("invalid port %v", p)
			}
		}
		if again, warnings := forwards(strings.Fields(join(ports))); join(again) != join(ports) || len(warnings) != 0 {
			t.Errorf("%v became %v (%q)", ports, again, warnings)
		}
	})
}

func TestControlMessages(t *testing.T) {
	for line, want := range map[string]message{
		"ready": {ready: true}, "exit 0": {exit: 0}, "exit 255": {exit: 255},
	} {
		if got, err := parseMessage(line); err != nil || got != want {
			t.Errorf("%q: %+v %v", line, got, err)
		}
	}
	for _, line := range []string{"", "exit", "exit ", "exit 256", "exit -1", "exit 01", "exit 1 ", "READY", "ready\r", "signal 9", "exit 1\x00"} {
		if m, err := parseMessage(line); !errors.Is(err, errControl) {
			t.Errorf("%q: %+v %v", line, m, err)
		}
	}
}

func collect(in string) ([]message, error) {
	var got []message
	err := readControl(strings.NewReader(in), func(m message) { got = append(got, m) })
	return got, err
}

func TestReadControl(t *testing.T) {
	got, err := collect("ready\nexit 3\n")
	if err != nil || len(got) != 2 || got[1].exit != 3 {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := collect("ready\nexit 3"); err != nil || len(got) != 1 {
		t.Errorf("unfinished line: %+v %v", got, err)
	}
	if _, err := collect(strings.Repeat("x", 1<<20)); !errors.Is(err, errControl) {
		t.Errorf("endless line: %v", err)
	}
	if got, err := collect("ready\nnonsense\nexit 0\n"); !errors.Is(err, errControl) || len(got) != 1 {
		t.Errorf("what follows nonsense was believed: %+v %v", got, err)
	}
}

func FuzzReadControl(f *testing.F) {
	f.Add([]byte("ready\nexit 3\n"))
	f.Add([]byte("exit 256\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		_ = readControl(bytes.NewReader(in), func(m message) {
			if m.exit < 0 || m.exit > 255 {
				t.Fatalf("exit status %d", m.exit)
			}
		})
	})
}

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
