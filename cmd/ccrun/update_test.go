package main

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/luks"
)

func fleetShape() measure.Shape { return measure.Shape{CPUs: 2, MemoryMiB: 1000} }

// seriesOn measures on the firmware at path.
func seriesOn(t testing.TB, path string) *measure.Series {
	t.Helper()
	fw, err := firmware.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return measure.NewSeries(kbs.SNP, fw)
}

// fleetMember is a registration on some firmware, and the initrd of its workload.
func fleetMember(t testing.TB, id string, on *measure.Series, agent []byte) (kbs.RegisterRequest, []byte) {
	t.Helper()
	g, err := luks.NewGeometry("8392b074-a42c-4b49-9b3e-8cfb0429ff8c", 1<<20, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := (&krun.Identity{
		Version: krun.IdentityVersion, WorkloadID: id, TEE: kbs.SNP,
		Servers: krun.Servers{URLs: []string{"https://192.0.2.1:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
		Disk:    krun.DiskIdentity{Geometry: g, VolumeKeyDigest: kbs.Sum384([]byte("k")), Filesystem: "btrfs", ImageBytes: g.TotalBytes() + krun.FooterAlign},
		Scratch: krun.Scratch{Kind: krun.ScratchMemory}, Policy: krun.LaunchPolicy{Logs: "host"}, ProcessDigest: kbs.Sum384([]byte("p")),
	}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	segment, err := firmware.IdentitySegment(identity)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := firmware.ComposeInitrd(agent, segment)
	if err != nil {
		t.Fatal(err)
	}
	list, err := on.Registered(initrd, fleetShape(), false)
	if err != nil {
		t.Fatal(err)
	}
	return kbs.RegisterRequest{
		DiskKey: []byte("very secret"), Boot: &kbs.Boot{Identity: identity, Agent: kbs.Sum384(agent), Initrd: kbs.Sum384(initrd)},
		Registration: kbs.Registration{
			Version: 1, WorkloadID: id, IdentityDigest: kbs.Sum384(identity), FooterDigest: kbs.Sum384([]byte("f")),
			ReferenceValues: kbs.ReferenceValues{TEE: kbs.SNP, Measurements: list},
		},
	}, initrd
}

// nextFirmware is the library at path with another kernel.
func nextFirmware(t testing.TB, path string) string {
	t.Helper()
	fw, err := firmware.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	fw.Kernel[len(fw.Kernel)-1] ^= 1
	b, err := firmware.BuildLibrary(fw, fw.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(t.TempDir(), firmware.LibraryName)
	if err := os.WriteFile(next, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return next
}

// TestUpdateFleet rolls a fleet from one firmware to the next, as typed. With
// CCRUN_FLEET=10000 it says how long that takes.
func TestUpdateFleet(t *testing.T) {
	size, agent := 2*kbs.MaxUpdates+3, []byte(strings.Repeat("agent", 1000))
	if s := os.Getenv("CCRUN_FLEET"); s != "" {
		var err error
		if size, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		agent = []byte(strings.Repeat("agent", 600_000)) // as large as a real one
	}
	c := startServer(t)
	lib, _ := testFirmware(t)
	next := nextFirmware(t, lib)
	if err := c.PutAgent(t.Context(), agent); err != nil {
		t.Fatal(err)
	}
	on := seriesOn(t, lib)
	for i := range size {
		req, _ := fleetMember(t, fmt.Sprintf("w%05d", i), on, agent)
		if _, err := c.Register(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	out, err := ccrun("workload", "update", "--all", "--firmware", next)
	took := time.Since(began)
	if err != nil || strings.Count(out, string(measure.Libkrun116)) != size {
		t.Fatalf("%v: %.2000s", err, out)
	}
	_, initrd := fleetMember(t, "w00001", on, agent)
	fw, err := firmware.Load(next)
	if err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	want, err := measure.Registered(kbs.SNP, fw, initrd, fleetShape(), false)
	if err != nil {
		t.Fatal(err)
	}
	alone := time.Since(began)
	t.Logf("%d workloads updated in %s, each %.2f × what measuring one alone takes (%s)", size, took.Round(time.Millisecond),
		float64(took)/float64(size)/float64(alone), alone.Round(time.Microsecond))
	if out, err := ccrun("workload", "show", "w00001"); err != nil || !strings.Contains(out, want[0].LaunchDigest.String()) || strings.Contains(out, "until") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := ccrun("workload", "update", "w00001", "w00002", "--firmware", next, "--not-after", "24h"); err != nil || !strings.Contains(out, "w00002") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := ccrun("workload", "show", "w00001"); err != nil || strings.Count(out, ", until ") != len(want) {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := ccrun("workload", "update", "w00003", "--firmware", next); err != nil || !strings.Contains(out, "was so already") {
		t.Errorf("%v: %s", err, out)
	}
	for _, args := range [][]string{{"--firmware", next}, {"w00001"}, {"--all", "w00001", "--firmware", next}, {"w00001", "--firmware", next, "--not-after", "soon"}} {
		if out, err := ccrun(append([]string{"workload", "update"}, args...)...); err == nil {
			t.Errorf("%v: %s", args, out)
		}
	}
}

// TestMeasureAgainstSession: what a denied guest had booted is found from its
// session's number, with nothing at hand but firmware; what the server has kept of
// it is written as it came.
func TestMeasureAgainstSession(t *testing.T) {
	lib, _ := testFirmware(t)
	agent := []byte("agent")
	req, initrd := fleetMember(t, "shop", seriesOn(t, lib), agent)
	rec := kbs.SessionRecord{Session: "3k9m0w7f2c5d8x1a", WorkloadID: "shop", Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Contraindicated, Rules: []kbs.Rule{}}}
	var raw []byte // what the server has kept of the session
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any
		switch r.URL.Path {
		case "/v1/sessions/" + rec.Session:
			answer = rec
		case "/v1/workloads/shop/boot":
			answer = kbs.Bootable{Registration: req.Registration, RegistrationDigest: kbs.Digest{1}, Boot: req.Boot}
		case "/v1/agents/" + kbs.Sum384(agent).String():
			answer = kbs.AgentSegment{Segment: agent}
		case "/v1/sessions/" + rec.Session + "/evidence":
			if answer = (kbs.SessionEvidence{TEE: kbs.SNP, Evidence: raw}); raw != nil {
				break
			}
			fallthrough
		default:
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	for file, content := range map[string][]byte{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), token: []byte("ccrun_" + strings.Repeat("a", 12) + "_" + strings.Repeat("b", 43))} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fw, err := firmware.Load(lib)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(s measure.Shape) kbs.LaunchDigest {
		list, err := measure.Registered(kbs.SNP, fw, initrd, s, false)
		if err != nil {
			t.Fatal(err)
		}
		return list[0].LaunchDigest
	}
	toServer := func(args ...string) (string, error) {
		return ccrun(append(args, "--server", srv.URL, "--ca", ca, "--token-file", token)...)
	}
	for want, d := range map[string]kbs.LaunchDigest{
		"has the expected measurement":      digest(measure.Shape{CPUs: 2, MemoryMiB: 1000}),
		"differs in cpus":                   digest(measure.Shape{CPUs: 4, MemoryMiB: 1000}),
		"firmware, kernel or initrd differ": {9},
		"its Evidence was not authentic":    {},
	} {
		rec.Result.Claims = nil
		if !d.IsZero() {
			if rec.Result.Claims, err = json.Marshal(verifier.Claims{TEE: kbs.SNP, LaunchDigest: d, SNP: &verifier.SNPClaims{}}); err != nil {
				t.Fatal(err)
			}
		}
		out, err := toServer("measure", "--against", rec.Session, "--firmware", lib)
		if err != nil {
			out += err.Error()
		}
		if !strings.Contains(out, want) {
			t.Errorf("%s: %s, %v", want, out, err)
		}
	}
	if out, err := toServer("explain", rec.Session, "--evidence"); err == nil || out != "" || !strings.Contains(hint.Of(err), "the latest 16") {
		t.Errorf("no evidence is kept: %q, %v", out, err)
	}
	// What was not authentic was kept, and says what it claims.
	d := digest(measure.Shape{CPUs: 4, MemoryMiB: 1000})
	raw = make([]byte, 1184)
	copy(raw[0x90:], d[:])
	rec.Result.Claims = nil
	if out, err := toServer("measure", "--against", rec.Session, "--firmware", lib); !strings.Contains(out, "differs in cpus") {
		t.Errorf("of kept evidence: %s, %v", out, err)
	}
	if out, err := toServer("explain", rec.Session, "--evidence"); err != nil || out != string(raw) {
		t.Errorf("explain --evidence: %q, %v", out, err)
	}
	if out, err := toServer("explain", rec.Session, "--evidence", "--format", "json"); face.Status(err) != face.Misused || out != "" {
		t.Errorf("explain --evidence --format: %q, %v", out, err)
	}
}
