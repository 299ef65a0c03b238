package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestPrintIncident: what is to be rotated is told as a command, and what is
// settled is not.
func TestPrintIncident(t *testing.T) {
	at := time.Date(2026, 12, 1, 2, 3, 4, 0, time.UTC)
	var out bytes.Buffer
	err := printIncident(&out, &kbs.Incident{Machine: kbs.Machine{ID: "07", DeniedAt: &at}, Granted: []kbs.MachineGrant{
		{WorkloadID: "acme.shop", At: at, Session: "s1", Rotation: "0102"}, {WorkloadID: "acme.half", At: at, Session: "s3", Rotation: "03", DrawnBefore: true},
		{WorkloadID: "acme.coco", At: at, Session: "s4"}, {WorkloadID: "acme.old", At: at, Session: "s2", Settled: true}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"machine 07 is denied since 2026-12-01T02:03:04Z\n", "new key staged: ccrun workload rotate acme.shop IMAGE\n", "rotate acme.half IMAGE, then this again\n", "revoke acme.coco\n", "settled", "4 workloads were granted to it, 3 are not settled\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "rotate acme.old") {
		t.Error(out.String())
	}
}
