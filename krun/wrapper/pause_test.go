package wrapper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// infra makes h's container one that Podman makes for a pod.
func (h *host) infra() *host {
	h.t.Helper()
	own := filepath.Join(h.dir, "catatonit")
	h.write(own, []byte("sleeps"))
	h.env["TEST_PAUSE"] = "/nonexistent " + own
	h.write(filepath.Join(h.rootfs, "catatonit"), []byte("sleeps"))
	for _, dir := range []string{"etc", "run", "proc"} {
		if err := os.Mkdir(filepath.Join(h.rootfs, dir), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	h.write(filepath.Join(h.rootfs, "etc/hosts"), nil)
	h.link("etc/mtab", "/proc/mounts")
	h.infraSpec(`"mounts":[{"destination":"/etc/hosts","type":"bind","source":"/x"}]`)
	return h
}

func (h *host) infraSpec(more string) {
	h.writeSpec(`{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["/catatonit","-P"]},` + more + `}`)
}

// TestInfraContainer: a pod's infra container is nobody's workload, and crun
// runs it as what it is, whether or not it could start VMs.
func TestInfraContainer(t *testing.T) {
	for name, edit := range map[string]func(h *host){
		"of an image": func(*host) {},
		"no libkrun":  func(h *host) { h.env["FAKE_VERSION"] = "crun version 1.8\n+SYSTEMD" },
		"of the host's": func(h *host) {
			h.write(filepath.Join(h.rootfs, "catatonit"), nil)
			h.infraSpec(`"mounts":[{"destination":"/catatonit","type":"bind","source":"` + filepath.Join(h.dir, "catatonit") + `"}]`)
		},
	} {
		h := newHost(t).infra()
		edit(h)
		before, _ := os.ReadFile(filepath.Join(h.bundle, "config.json"))
		r, stderr, _ := h.run(h.create()...)
		if r == nil || r.Args[0] != "crun" || string(r.Spec) != string(before) {
			t.Errorf("%s: %+v, %s, expected crun without its krun handler", name, r, stderr)
		}
		if r, stderr, _ := h.run("start", "c0ffee"); r == nil || r.Args[0] != "krun" || !strings.Contains(stderr, "infra container") {
			t.Errorf("%s: start: %+v, %s", name, r, stderr)
		}
	}
}

// TestPlainOnlyForInfra: whoever asks for runtime krun gets nothing run as a
// plain container but a program that sleeps, with nothing beside it.
func TestPlainOnlyForInfra(t *testing.T) {
	for name, edit := range map[string]func(h *host){
		"another program":  func(h *host) { h.write(filepath.Join(h.rootfs, "catatonit"), []byte("speaks")) },
		"an empty program": func(h *host) { h.write(filepath.Join(h.rootfs, "catatonit"), nil) },
		"both empty": func(h *host) {
			h.write(filepath.Join(h.rootfs, "catatonit"), nil)
			h.write(filepath.Join(h.dir, "catatonit"), nil)
		},
		"none on the host":  func(h *host) { h.env["TEST_PAUSE"] = "" },
		"a file besides":    func(h *host) { h.write(filepath.Join(h.rootfs, "etc/data"), []byte("x")) },
		"a pipe besides":    func(h *host) { h.fifo("etc/pipe") },
		"a link for a root": func(h *host) { h.link("catatonit", "/../../catatonit") },
		"many entries": func(h *host) {
			for i := range maxPauseEntries {
				h.write(filepath.Join(h.rootfs, "run", strings.Repeat("x", i%200+1)+string(rune('a'+i/200))), nil)
			}
		},
		"other arguments": func(h *host) {
			h.writeSpec(`{"root":{"path":"rootfs"},"process":{"args":["/catatonit","--","/bin/sh"]}}`)
		},
		"one argument more": func(h *host) {
			h.writeSpec(`{"root":{"path":"rootfs"},"process":{"args":["/catatonit","-P","x"]}}`)
		},
		"no process": func(h *host) { h.writeSpec(`{"root":{"path":"rootfs"}}`) },
		"a handler":  func(h *host) { h.infraSpec(`"annotations":{"run.oci.handler":"krun"}`) },
		"a mount over it": func(h *host) {
			h.infraSpec(`"mounts":[{"destination":"catatonit/","type":"bind","source":"/etc/hostname"}]`)
		},
		"a mount over /": func(h *host) { h.infraSpec(`"mounts":[{"destination":"/.","type":"bind","source":"/x"}]`) },
		"a second mount": func(h *host) {
			own := `{"destination":"/catatonit","type":"bind","source":"` + filepath.Join(h.dir, "catatonit") + `"}`
			h.infraSpec(`"mounts":[` + own + `,{"destination":"/catatonit","type":"bind","source":"/etc/hostname"}]`)
		},
		"a tmpfs for it": func(h *host) { h.infraSpec(`"mounts":[{"destination":"/catatonit","type":"tmpfs","source":"tmpfs"}]`) },
	} {
		h := newHost(t).infra()
		edit(h)
		if r, stderr, _ := h.run(h.create()...); r == nil || r.Args[0] != "krun" {
			t.Errorf("%s, with libkrun: %+v, %s, expected a VM", name, r, stderr)
		}
		h.env["FAKE_VERSION"] = "crun version 1.24\n+SYSTEMD"
		if r, stderr, _ := h.run(h.create()...); r != nil || !strings.Contains(stderr, "no confidential workload image") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s, without libkrun: %+v, %s, expected a refusal", name, r, stderr)
		}
	}
	h := newHost(t).workload().infra()
	if r, stderr, _ := h.run(h.create()...); r != nil && r.Args[0] != "krun" || strings.Contains(stderr, "infra") {
		t.Errorf("a workload with an infra container's command: %+v, %s", r, stderr)
	}
}
