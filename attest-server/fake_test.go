package attestserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/servertest"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/secret"
)

// fakeTEE is hardware whose every report is authentic if it carries the
// magic: what it claims is still appraised for real.
type fakeTEE struct{}

const fakeMagic = "fake report"

// fakeTCB is a Genoa's in which no advisory is open.
var fakeTCB = kbs.SNPTCB{Bootloader: 10, SNP: 27, Microcode: 88}

func fakeReport(tee kbs.TEE, d kbs.LaunchDigest, rd kbs.ReportData) kbs.Evidence {
	return fakeReportOf(9, tee, d, rd)
}

// fakeReportOf is a report of the VM whose REPORT_ID is vm in every byte.
func fakeReportOf(vm byte, tee kbs.TEE, d kbs.LaunchDigest, rd kbs.ReportData) kbs.Evidence {
	return kbs.Evidence{TEE: tee, Report: slices.Concat([]byte(fakeMagic), d[:], rd[:], []byte{vm})}
}

func (fakeTEE) Verify(_ context.Context, ev kbs.Evidence, _ time.Time) (*verifier.Claims, error) {
	b, ok := bytes.CutPrefix(ev.Report, []byte(fakeMagic))
	if !ok || len(b) != 48+64+1 {
		return nil, &verifier.Error{Rule: verifier.Rule{Rule: "signature", Expected: "a signature", Got: "none"}}
	}
	return &verifier.Claims{
		TEE: ev.TEE, LaunchDigest: kbs.LaunchDigest(b[:48]), ReportData: kbs.ReportData(b[48:112]),
		SNP: &verifier.SNPClaims{
			ReportVersion: 5, Product: "Genoa", Silicon: "19/11/1", Signer: "VCEK", ReportedTCB: fakeTCB, LaunchTCB: fakeTCB, HostData: make([]byte, 32), ReportID: bytes.Repeat(b[112:], 32), ReportIDMA: bytes.Repeat([]byte{0xff}, 32),
			IDKeyDigest: make([]byte, 48), AuthorKeyDigest: make([]byte, 48), ChipID: bytes.Repeat([]byte{7}, 64),
		},
	}, nil
}

// fakeClock is put forward by the tests.
type fakeClock struct{ *servertest.Clock }

func (c fakeClock) advance(d time.Duration) { c.Advance(d) }

// rig is a server with everything real but the TEE and the clock.
type rig struct {
	t      testing.TB
	server *Server
	http   *httptest.Server
	store  *store.DB
	clock  fakeClock
	log    *bytes.Buffer
	admin  kbs.AdminClient
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, clock: fakeClock{servertest.NewClock(time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC))}, log: &bytes.Buffer{}}
	master, err := masterkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.store, err = store.Create(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{MasterKey: master, Rand: rand.Reader, Clock: r.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	c := Config{
		Store: r.store, Verifiers: map[kbs.TEE]verifier.Verifier{kbs.Sample: fakeTEE{}},
		Clock: r.clock.Now, Rand: rand.Reader,
		Log: slog.New(slog.NewJSONHandler(&lockedWriter{w: r.log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&c)
	}
	if r.server, err = New(c); err != nil {
		t.Fatal(err)
	}
	r.http = httptest.NewUnstartedServer(nil)
	r.http.Config = r.server.HTTPServer()
	r.http.Config.Handler = asDescribed(t, r.http.Config.Handler)
	r.http.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	r.http.StartTLS()
	t.Cleanup(r.http.Close)
	r.admin = r.adminClient(r.token(store.Admin))
	return r
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (r *rig) token(role store.Role) secret.Bytes {
	r.t.Helper()
	tok, _, err := r.store.CreateToken(r.t.Context(), "", role, "", time.Time{}, "local")
	if err != nil {
		r.t.Fatal(err)
	}
	return tok
}

func (r *rig) adminClient(token secret.Bytes) kbs.AdminClient {
	roots := x509.NewCertPool()
	roots.AddCert(r.http.Certificate())
	return kbs.AdminClient{URL: r.http.URL, Token: token, RootCAs: roots}
}

func (r *rig) pins() []string { return []string{kbs.PinOf(r.http.Certificate())} }

const diskKeyText = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func request(id string, digest byte) kbs.RegisterRequest {
	return kbs.RegisterRequest{
		Registration: kbs.Registration{
			Version: 1, WorkloadID: id,
			IdentityDigest: kbs.Sum384([]byte("identity of " + id)), FooterDigest: kbs.Sum384([]byte("footer of " + id)),
			ReferenceValues: kbs.ReferenceValues{TEE: kbs.Sample, Measurements: []kbs.Measurement{
				{LaunchDigest: kbs.LaunchDigest{digest}, Profile: "fake", CPUs: 1, MemoryMiB: 512, Firmware: "00"},
			}},
		},
		DiskKey: []byte(diskKeyText + id),
	}
}

func (r *rig) register(id string, digest byte) {
	r.t.Helper()
	if created, err := r.admin.Register(r.t.Context(), request(id, digest)); err != nil || !created {
		r.t.Fatalf("Register = %v, %v", created, err)
	}
}

// guest is what an honest agent of workload id does.
func (r *rig) guest(id string, digest byte) (kbs.Client, kbs.ReleaseRequest) {
	c := kbs.Client{URLs: []string{r.http.URL}, PinnedKeys: r.pins()}
	return c, kbs.ReleaseRequest{
		WorkloadID: id, TEE: kbs.Sample,
		IdentityDigest: kbs.Sum384([]byte("identity of " + id)), FooterDigest: kbs.Sum384([]byte("footer of " + id)),
		Attest: func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
			return fakeReport(kbs.Sample, kbs.LaunchDigest{digest}, rd), nil
		},
	}
}

// call is a raw request: what a client of someone else's making could send.
func (r *rig) call(method, path, bearer string, body any) (int, []byte) {
	r.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = bytes.NewReader([]byte(b))
	default:
		j, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		in = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.http.URL+path, in)
	if err != nil {
		r.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, b
}

// code is the problem code of an answer, "" for success.
func code(t testing.TB, status int, b []byte) string {
	t.Helper()
	if status/100 == 2 {
		return ""
	}
	var p kbs.Problem
	if err := kbs.UnmarshalStrict(b, &p); err != nil || p.Status != status || p.Code == "" {
		t.Fatalf("status %d with body %q: %v", status, b, err)
	}
	return p.Code
}
