package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/podman/podmantest"
)

// shopsHost is a host with three workloads and a plain container.
func shopsHost(t *testing.T) string {
	t.Helper()
	labels := map[string]string{"io.ccrun.version": "1", "io.ccrun.tee": "snp", "io.ccrun.workload-id": "shop", "io.ccrun.launch-digest": "libkrun-1.16=" + strings.Repeat("ab", 48)}
	return podmantest.Serve(t, podmantest.Podman{Containers: []podmantest.Container{
		{ID: strings.Repeat("1", 64), Name: "web", Image: "localhost/shop-cw", State: "running", StartedAt: 1700000000, Labels: labels, CPU: 12.5, Memory: 300 << 20,
			Files: map[string]string{"/krun-sev.json": `{"workload_id":"shop","cpus":2,"ram_mib":1024,"tee":"snp","tee_data":"{}","attestation_url":"https://keys.example.com:8443"}`}},
		{ID: strings.Repeat("2", 64), Name: "refused", State: "exited", ExitCode: 77, ExitedAt: 1700000000, Labels: labels},
		{ID: strings.Repeat("3", 64), Name: "plain", State: "running"},
	}})
}

// TestPs: the manners of `podman ps`, for confidential workloads.
func TestPs(t *testing.T) {
	url := shopsHost(t)
	for args, want := range map[string][]string{
		"ps":                           {"CONTAINER ID", "111111111111  web   shop      running  ", "years ago", "https://keys.example.com:8443", "abababababab ", "1GiB"},
		"ps -a":                        {"222222222222  refused", "denied (77)"},
		"ps -q":                        {"111111111111\n"},
		"ps -q --no-trunc":             {strings.Repeat("1", 64) + "\n"},
		"ps --no-trunc":                {strings.Repeat("1", 64), strings.Repeat("ab", 48)},
		"ps -a --format {{.Name}}":     {"refused\nweb\n"},
		"top":                          {"CPU %", "12.5", "300MiB / 1GiB"},
		"top web":                      {"web"},
		"top -q":                       {"111111111111\n"},
		"top --format {{.CPUPercent}}": {"12.5\n"},
	} {
		out, err := ccrun(append(strings.Fields(args), "--url", url)...)
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", args, w, out)
			}
		}
		if strings.Contains(out, "plain") || !strings.Contains(args, "-a") && strings.Contains(out, "refused") {
			t.Errorf("%s: what does not belong there\n%s", args, out)
		}
	}
	out, err := ccrun("ps", "-a", "--format", "json", "--url", url)
	var list []map[string]any
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 2 || list[0]["status"] != 77.0 || list[1]["server"] != "https://keys.example.com:8443" || list[1]["memory_mib"] != 1024.0 {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := ccrun("ps", "web", "--url", url); face.Status(err) != face.Misused {
		t.Errorf("%v", err)
	}
	if _, err := ccrun("top", "plain", "--url", url); err == nil || !strings.Contains(err.Error(), "no confidential workload plain") {
		t.Errorf("%v", err)
	}
}
