package tests

import (
	"strings"
	"testing"
)

// TestCipher runs an image under AEGIS-128: its kernel opens the image, whose
// sectors our writer made, and what the workload writes is there at the next start.
func TestCipher(t *testing.T) {
	w := newWorld(t)
	image := w.build("aegis", shell(`cat /kept 2>/dev/null; echo written >>/kept; head -c 4194304 /dev/urandom >/bulk; sync; sha256sum /bin/busybox; echo END`),
		"--cipher", "aegis128", "--scratch", "192MiB")
	if r := w.run("ccrun", "inspect", image); !strings.Contains(r.stdout, "aegis128-plain64") || !strings.Contains(r.stdout, "16-byte tags") {
		t.Errorf("inspect: %s", r)
	}
	id := strings.TrimSpace(w.must("podman", "create", "--runtime", "krun-sim", "--network", "host", image))
	defer w.run("podman", "rm", "-f", "-t", "0", id)
	for i := range 2 {
		r := w.run("podman", "start", "-a", id)
		if r.code != 0 || strings.Count(r.stdout, "written\n") != i || !strings.HasSuffix(r.stdout, "END\n") || strings.Contains(r.stderr, "scratch") {
			t.Fatalf("start %d: %s", i+1, r)
		}
	}
}

// lacksCipher: the rig's kernel has no AEGIS-128. The guest says so, by step and
// class, and what helps.
func (w *rigWorld) lacksCipher(t *testing.T) {
	r := w.podman(w.build("lacks", shell("echo must not run"), "--cipher", "aegis128"))
	if r.stdout != "" || !strings.Contains(r.stderr, "unlocking the disk: unsupported: ") ||
		!strings.Contains(r.stderr, "no cipher aegis128-plain64") || !strings.Contains(r.stderr, "--cipher aes-xts") ||
		!strings.HasSuffix(strings.TrimSpace(r.stderr), "ccrun: exit status 125") {
		t.Errorf("a kernel without the cipher: %s", r)
	}
}
