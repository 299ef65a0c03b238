package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const goodCrun = "crun version 1.27\ncommit: x\n+SYSTEMD +LIBKRUN\n"

// fitHost is a host on which every check passes.
func fitHost(t *testing.T) *Host {
	root := t.TempDir()
	for path, content := range map[string]string{
		"dev/kvm": "", "dev/sev": "",
		"sys/module/kvm_amd/parameters/sev_snp": "Y\n",
		"sys/fs/cgroup/misc.capacity":           "sev 0\nsev_es 99\n",
		"usr/lib64/libkrun-sev.so.1":            "",
	} {
		p := filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	outputs := map[string]string{"crun": goodCrun, "podman": "podman version 5.4.2\n", "passt": "passt 2025\n"}
	return &Host{
		Root:     root,
		Output:   func(_ context.Context, name string, _ ...string) (string, error) { return outputs[name], nil },
		Clock:    func() (int, error) { return unix.TIME_OK, nil },
		Firmware: func() (string, error) { return "/usr/lib64/libkrunfw-sev.so.5", nil },
		Server:   func(context.Context) error { return nil },
	}
}

func TestFitHost(t *testing.T) {
	findings, fit := fitHost(t).Examine(context.Background())
	if !fit || len(findings) != len(checks()) {
		t.Fatalf("fit host refused: %+v", findings)
	}
}

func TestEachFaultIsNamed(t *testing.T) {
	answer := func(s string) func(*Host) {
		return func(h *Host) {
			old := h.Output
			h.Output = func(ctx context.Context, name string, arg ...string) (string, error) {
				if strings.HasPrefix(s, name) {
					return s, nil
				}
				return old(ctx, name, arg...)
			}
		}
	}
	remove := func(p string) func(*Host) { return func(h *Host) { _ = os.Remove(h.path(p)) } }
	for name, c := range map[string]struct {
		check string
		want  Status
		spoil func(*Host)
	}{
		"no kvm":           {"kvm", Fail, remove("dev/kvm")},
		"snp off":          {"tee", Fail, remove("sys/module/kvm_amd/parameters/sev_snp")},
		"no sev device":    {"tee", Fail, remove("dev/sev")},
		"no asids":         {"asids", Warn, remove("sys/fs/cgroup/misc.capacity")},
		"crun plain":       {"crun", Fail, answer("crun version 1.27\n+SYSTEMD\n")},
		"crun old":         {"crun", Fail, answer("crun version 1.20\n+LIBKRUN\n")},
		"crun garbage":     {"crun", Fail, answer("crun")},
		"no libkrun":       {"libkrun", Fail, remove("usr/lib64/libkrun-sev.so.1")},
		"no firmware":      {"firmware", Fail, func(h *Host) { h.Firmware = func() (string, error) { return "", errAbsent } }},
		"podman old":       {"podman", Fail, answer("podman version 4.3.1")},
		"clock off":        {"clock", Warn, func(h *Host) { h.Clock = func() (int, error) { return unix.TIME_ERROR, nil } }},
		"server away":      {"server", Fail, func(h *Host) { h.Server = func(context.Context) error { return errAbsent } }},
		"server not named": {"", OK, func(h *Host) { h.Server = nil }},
	} {
		h := fitHost(t)
		c.spoil(h)
		findings, fit := h.Examine(context.Background())
		if fit != (c.want != Fail) {
			t.Errorf("%s: fit = %v", name, fit)
		}
		for _, f := range findings {
			want := OK
			if f.Check == c.check {
				want = c.want
			}
			if f.Status != want || (f.Status != OK) != (f.Fix != "") {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}
