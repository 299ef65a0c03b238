package tests

import (
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
)

// TestPortable moves a workload image about as Podman's users do. `podman save`
// and `kube play` lose the manifest's annotations on the way, or cut them to 63
// characters; what a launch needs is in the image, so the workload starts, and
// answers on its port.
func TestPortable(t *testing.T) {
	w := newWorld(t)
	var ports []string // longer than 63 characters in one line
	for range 8 {
		ports = append(ports, freePort(t))
	}
	port := slices.Max(ports) // the end of that line
	config := shell("echo moved >/tmp/index.html; exec httpd -f -p " + port + " -h /tmp")
	exposed := map[string]struct{}{}
	for _, p := range ports {
		exposed[p+"/tcp"] = struct{}{}
	}
	config["ExposedPorts"] = exposed
	image := w.build("moved", config)
	for _, format := range []string{"docker-archive", "oci-archive"} {
		t.Run("save and load "+format, func(t *testing.T) {
			archive := filepath.Join(w.dir, format+".tar")
			w.must("podman", "save", "-q", "--format", format, "-o", archive, image)
			w.must("podman", "rmi", image)
			w.must("podman", "load", "-q", "-i", archive)
			w.must("podman", "run", "-d", "--name", "moved", "--runtime", "krun-sim", "--network", "host", image)
			w.serves(t, "moved", port)
			if format == "docker-archive" {
				w.must("podman", "rm", "-f", "-t", "0", "moved")
			}
		})
	}
	t.Run("generate kube and kube play", func(t *testing.T) {
		pod := filepath.Join(w.dir, "pod.yaml")
		w.must("podman", "generate", "kube", "-f", pod, "moved")
		w.must("podman", "rm", "-f", "-t", "0", "moved")
		w.must("podman", "--runtime", "krun-sim", "kube", "play", pod)
		w.serves(t, "moved-pod-moved", port)
		w.must("podman", "kube", "down", pod)
	})
}

// serves waits until the workload's page is there.
func (w *world) serves(t *testing.T, container, port string) {
	t.Helper()
	var page []byte
	got := eventually(func() bool {
		resp, err := http.Get("http://127.0.0.1:" + port + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		page, err = io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return err == nil && string(page) == "moved\n"
	})
	if !got {
		t.Fatalf("port %s does not answer; it had %q; %s", port, page, w.run("podman", "logs", container))
	}
}
