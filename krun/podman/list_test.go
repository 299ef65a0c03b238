package podman

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun/podman/podmantest"
)

const shopConfig = `{"workload_id":"shop","cpus":2,"ram_mib":1024,"tee":"snp","tee_data":"{}","attestation_url":"https://keys.example.com:8443"}`

// TestWorkloads: of all containers those of workload images are listed, with what
// Podman, their image and their agent's last words tell.
func TestWorkloads(t *testing.T) {
	labels := map[string]string{"io.ccrun.version": "1", "io.ccrun.tee": "snp", "io.ccrun.workload-id": "shop", "io.ccrun.launch-digest": "libkrun-1.16=aa,libkrun-1.12=bb"}
	waiting := "ccrun-init: asking https://keys.example.com:8443 for the disk key: connection refused; next: check it; trying again in 41s, after 12m3s of waiting\n"
	krunPrefix := "[2026-11-30T06:26:18.117380Z ERROR init_or_kernel] "
	layers := t.TempDir()
	evil := filepath.Join(layers, "evil")
	if err := errors.Join(os.WriteFile(filepath.Join(layers, "krun-sev.json"), []byte(strings.Replace(shopConfig, "keys", "other", 1)), 0o600),
		os.Mkdir(evil, 0o700), os.Symlink("../krun-sev.json", filepath.Join(evil, "krun-sev.json"))); err != nil {
		t.Fatal(err)
	}
	fake := podmantest.Serve(t, podmantest.Podman{Containers: []podmantest.Container{
		{ID: "a8", Name: "layered", State: "running", Labels: labels, LowerDir: "/nowhere:" + layers},
		{ID: "a9", Name: "linked", State: "running", Labels: labels, LowerDir: evil},
		{ID: "a1", Name: "runs", State: "running", StartedAt: 1700000000, Labels: labels, Files: map[string]string{"/krun-sev.json": shopConfig}, Log: waiting + "hello\n"},
		{ID: "a2", Name: "waits", State: "running", StartedAt: 1700000000, Labels: labels, Log: "x\n" + krunPrefix + waiting},
		{ID: "a3", Name: "denied", State: "exited", ExitedAt: 1700000001, Labels: labels, Log: krunPrefix + "ccrun: exit status 77\n"},
		{ID: "a4", Name: "failed", State: "exited", ExitedAt: 1700000001, ExitCode: 3, Labels: labels, Log: "ccrun: exit status 77\n"},
		{ID: "a5", Name: "classic", State: "running", Labels: map[string]string{"io.ccrun.layout": "classic"}, Files: map[string]string{"/krun-sev.json": strings.Repeat("x", 1<<20)}},
		{ID: "a6", Name: "plain", State: "running", Labels: map[string]string{"io.ccrun.workload-id": "shop"}},
		{ID: "a7", Name: "pod-infra", State: "running", Infra: true, Labels: labels},
	}})
	s, err := Open(t.Context(), Options{URL: fake})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Workloads(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, w := range list {
		status := "-"
		if w.Status != nil {
			status = fmt.Sprint(*w.Status)
		}
		since := "-"
		if w.Since != nil {
			since = fmt.Sprint(w.Since.Unix())
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s %s %s %d/%d %d", w.Name, w.WorkloadID, w.State, status, since, w.Server, w.CPUs, w.MemoryMiB, len(w.Measurements)))
	}
	want := []string{
		"classic  running - -  0/0 0",
		"denied shop denied 77 1700000001  0/0 2",
		"failed shop exited 3 1700000001  0/0 2",
		"layered shop running - - https://other.example.com:8443 2/1024 2",
		"linked shop running - -  0/0 2",
		"runs shop running - 1700000000 https://keys.example.com:8443 2/1024 2",
		"waits shop waiting - 1700000000  0/0 2",
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nexpected\n%s", got, strings.Join(want, "\n"))
	}
	if list, err = s.Workloads(t.Context(), false); err != nil || len(list) != 5 {
		t.Errorf("those that run: %d, %v", len(list), err)
	}
	if b, err := json.Marshal(list); err != nil || strings.Contains(string(b), "null") {
		t.Errorf("%s, %v", b, err)
	}
}

func TestUsages(t *testing.T) {
	fake := podmantest.Serve(t, podmantest.Podman{Containers: []podmantest.Container{{ID: "a1", Name: "runs", State: "running", CPU: 12.5, Memory: 1 << 20}}})
	s, err := Open(t.Context(), Options{URL: fake})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Usages(t.Context(), []string{"a1"})
	if err != nil || got["a1"].CPUPercent != 12.5 || got["a1"].MemoryBytes != 1<<20 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := s.Usages(t.Context(), nil); err != nil || len(got) != 0 { // else it would be of all
		t.Errorf("%v, %v", got, err)
	}
}

func TestUpTo(t *testing.T) {
	var b strings.Builder
	u := &upTo{w: &b, left: 3}
	if _, err := u.Write([]byte("abc")); err != nil || b.String() != "abc" {
		t.Errorf("%q, %v", b.String(), err)
	}
	if _, err := u.Write([]byte("d")); !errors.Is(err, errTooMuch) {
		t.Errorf("%v", err)
	}
}
