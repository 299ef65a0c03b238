package tests

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPods: a workload in a pod of Podman's, whose infra container no VM could
// hold: it runs beside, the pod's network is the workload's, and its ports are
// the pod's.
func TestPods(t *testing.T) {
	w := newWorld(t)
	w.pods(t, "krun-sim", w.build("podded", podded()))
}

// TestKrunPods is TestPods on the real path, with more that is refused there.
func TestKrunPods(t *testing.T) {
	w := inRig(t)
	if w == nil {
		return
	}
	// Libkrun would open the port by TSI, whose other end nothing here speaks: QEMU
	// forwards it to the machine's network device.
	w.settings(map[string]any{"Slirp": ",hostfwd=tcp::" + podPort + "-:" + podPort,
		"Append": "tsi_hijack=0 ccrun.net=10.0.2.15/24," + rigGateway + ","})
	image := w.build("podded", podded())
	w.pods(t, "krun", image)
	w.leavesNothing(t)
	t.Run("host network", func(t *testing.T) {
		w.must("podman", "--runtime", "krun", "pod", "create", "--name", "open", "--network", "host")
		if r := w.run("podman", "--runtime", "krun", "run", "--rm", "--pod", "open", image); r.code == 0 || !strings.Contains(r.stderr, "loopback") {
			t.Errorf("a pod with the host's network: %s", r)
		}
		w.must("podman", "pod", "rm", "-f", "-t", "0", "open")
	})
	t.Run("another infra container", func(t *testing.T) {
		src := filepath.Join(w.dir, "src", "infra")
		writeOCI(t, src, map[string]any{"Entrypoint": []string{"/catatonit", "-P"}}, []entry{file("catatonit", 0o755, []byte("#!/bin/sh\n"))})
		w.must("skopeo", "--insecure-policy", "copy", "-q", "oci:"+src, "containers-storage:localhost/odd")
		w.must("podman", "--runtime", "krun", "pod", "create", "--name", "odd", "--infra-image", "localhost/odd", "--infra-command", "/catatonit -P")
		w.run("podman", "--runtime", "krun", "pod", "start", "odd")
		if said := w.run("podman", "logs", w.infra("odd")); !strings.Contains(said.stderr, "ordinary microVM") || !strings.Contains(said.stderr, "none of this host's") {
			t.Errorf("an infra container that is not Podman's: %s", said)
		}
		w.must("podman", "pod", "rm", "-f", "-t", "0", "odd")
	})
}

// leavesNothing waits until Podman has cleaned up behind this test's containers,
// which have ended, and says what it was waiting for.
func (w *rigWorld) leavesNothing(t *testing.T) {
	t.Helper()
	var left []string
	nothing := func() bool {
		left = nil
		all, _ := filepath.Glob("/run/ccrun/*")
		for _, dir := range all {
			if bundle, err := os.Readlink(filepath.Join(dir, "bundle")); err == nil && strings.HasPrefix(bundle, w.dir) {
				left = append(left, dir)
			}
		}
		return len(left) == 0
	}
	if eventuallyWithin(patience/5, nothing) {
		return
	}
	for _, dir := range left {
		w.blame("left over: %s, %s", dir, w.run("sh", "-c", `ls -la --time-style=full-iso "$0"; ls -ld "$(readlink "$0/bundle")"; cat "$0/warnings"`, dir))
	}
	t.Logf("containers: %s\nprocesses: %s", w.run("podman", "ps", "-a", "--pod", "--no-trunc"), w.run("ps", "-eo", "pid,ppid,stat,lstart,args"))
}

const podPort = "8080"

func podded() map[string]any {
	c := shell("trap 'echo stopped; exit 3' TERM; echo moved >/tmp/index.html; httpd -p " + podPort + " -h /tmp; echo up; while :; do sleep 0.1; done")
	c["ExposedPorts"] = map[string]struct{}{podPort + "/tcp": {}}
	return c
}

func (w *world) pods(t *testing.T, by, image string) {
	port := freePort(t)
	t.Run("kube play", func(t *testing.T) {
		file := filepath.Join(w.dir, "pod.yaml")
		write(t, file, podYAML(t, image, port))
		w.must("podman", "--runtime", by, "kube", "play", file)
		w.podServes(t, "played", "played-web", port)
		w.must("podman", "kube", "down", file)
	})
	t.Run("pod create", func(t *testing.T) {
		w.must("podman", "--runtime", by, "pod", "create", "--name", "made", "-p", port+":"+podPort)
		w.must("podman", "--runtime", by, "run", "-d", "--pod", "made", "--name", "made-web", image)
		w.podServes(t, "made", "made-web", port)
		w.must("podman", "--runtime", by, "pod", "start", "made")
		w.podServes(t, "made", "made-web", port)
		w.must("podman", "pod", "rm", "-f", "-t", "0", "made")
	})
	if left := w.must("podman", "ps", "-aq"); left != "" {
		t.Errorf("left over: %s", left)
	}
}

// podYAML is JSON, which is YAML, too.
func podYAML(t *testing.T, image, port string) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "played"},
		"spec": map[string]any{"terminationGracePeriodSeconds": 60, "containers": []any{map[string]any{
			"name": "web", "image": image, "imagePullPolicy": "Never",
			"ports": []any{map[string]any{"containerPort": json.Number(podPort), "hostPort": json.Number(port)}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) infra(pod string) string {
	w.t.Helper()
	return strings.TrimSpace(w.must("podman", "pod", "inspect", "--format", "{{.InfraContainerID}}", pod))
}

// podServes waits until the workload answers on the pod's port, and stops the pod.
func (w *world) podServes(t *testing.T, pod, container, port string) {
	t.Helper()
	infra := w.infra(pod)
	if running := w.must("podman", "inspect", "--format", "{{.State.Running}}", infra); running != "true\n" {
		t.Fatalf("the infra container is not running: %s", w.run("podman", "logs", infra))
	}
	w.reachServer(t, infra)
	w.awaitLog(t, container, "up")
	w.serves(t, container, port)
	w.must("podman", "pod", "stop", "-t", strconv.Itoa(int(patience.Seconds())), pod)
	logs := w.run("podman", "logs", container)
	code := w.must("podman", "inspect", "--format", "{{.State.ExitCode}}", container) // 0 of libkrun's
	if !strings.Contains(logs.stdout, "stopped") || code != "3\n" && !strings.Contains(logs.stderr, "ccrun: exit status 3") {
		t.Errorf("after stop: status %s, %s", code, logs)
	}
}

// reachServer has the server listen on the loopback of a container's network as
// well, which is the guest's gateway.
func (w *world) reachServer(t *testing.T, container string) {
	t.Helper()
	pid := strings.TrimSpace(w.must("podman", "inspect", "--format", "{{.State.Pid}}", container))
	l, err := listenIn("/proc/"+pid+"/ns/net", "127.0.0.1:"+w.port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go relay(c, "127.0.0.1:"+w.port)
		}
	}()
}

// listenIn listens in another network namespace.
func listenIn(namespace, address string) (l net.Listener, err error) {
	f, err := os.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err == nil {
			l, err = net.Listen("tcp", address)
		}
	}()
	<-done
	return l, err
}

func relay(c net.Conn, to string) {
	defer c.Close()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	go func() {
		_, _ = io.Copy(d, c)
		_ = d.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, d)
}
