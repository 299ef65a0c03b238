package wrapper

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/krun/firmware"
)

// The test binary plays three parts: the tests, the runtime under test (with
// CCRUN_TEST_RUNTIME set), and, copied to a file named crun, a crun that
// records how it was called.
func TestMain(m *testing.M) {
	self, _ := os.Executable()
	switch {
	case filepath.Base(self) == "crun":
		os.Exit(fakeCrun())
	case os.Getenv("CCRUN_TEST_RUNTIME") != "":
		os.Exit(testRuntime())
	}
	dir, err := os.MkdirTemp("", "crun-")
	if err == nil {
		crunCopy = filepath.Join(dir, "crun")
		err = copyFile(self, crunCopy)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

var crunCopy string // made once: each host has a link to it

type record struct {
	Args []string
	Env  []string
	Spec json.RawMessage
}

func fakeCrun() int {
	if slices.Contains(os.Args, "--version") {
		fmt.Println(os.Getenv("FAKE_VERSION"))
		return 0
	}
	r := record{Args: os.Args, Env: os.Environ()}
	if i := slices.Index(os.Args, "--bundle"); i > 0 {
		r.Spec, _ = os.ReadFile(filepath.Join(os.Args[i+1], "config.json"))
	}
	b, _ := json.Marshal(r)
	if err := os.WriteFile(os.Getenv("FAKE_RECORD"), b, 0o600); err != nil {
		return 99
	}
	return 42
}

func testRuntime() int {
	dir := os.Getenv("CCRUN_TEST_RUNTIME")
	w := &Wrapper{
		Crun: os.Getenv("TEST_CRUN"), CrunDirs: strings.Fields(os.Getenv("TEST_CRUN_DIRS")), Library: os.Getenv("TEST_LIBRARY"), StateDir: filepath.Join(dir, "state"), BootID: cmp.Or(os.Getenv("TEST_BOOT"), "boot"),
		Pause: strings.Fields(os.Getenv("TEST_PAUSE")), KVM: "/dev/null", SEV: os.Getenv("TEST_SEV"), SNP: testSNP, Exec: syscall.Exec, Version: testVersion,
		Environ: os.Environ(), Stdin: os.Stdin, Stderr: os.Stderr, Now: time.Now,
	}
	return w.Run(os.Args)
}

// testVersion spares each test a process; TestCreateWorkload asks the crun.
func testVersion(crun string) (string, error) {
	if os.Getenv("TEST_RUN_VERSION") != "" {
		return RunVersion(crun)
	}
	return os.Getenv("FAKE_VERSION"), nil
}

func testSNP(kvm string) (bool, error) {
	switch os.Getenv("TEST_SNP") {
	case "no":
		return false, nil
	case "unknown":
		return SNPMachines(kvm) // which is /dev/null
	}
	return true, nil
}

// host is a scratch host with a fake crun and a libkrunfw.
type host struct {
	t                   *testing.T
	dir, bundle, rootfs string
	env                 map[string]string
	fw                  *firmware.Bundle
	initrd              []byte
	stdin               io.Reader // nil: /dev/null, else a pipe as conmon's
}

const goodVersion = "crun version 1.24\ncommit: 54693209039e5e04cbe3c8b1cd5fe2301219f0a1\nrundir: /run/user/0/crun\nspec: 1.0.0\n+SYSTEMD +SELINUX +CAP +LIBKRUN +YAJL\n"

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir()}
	h.bundle, h.rootfs = filepath.Join(h.dir, "bundle"), filepath.Join(h.dir, "bundle", "rootfs")
	if err := os.MkdirAll(h.rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	crun := filepath.Join(h.dir, "crun")
	if err := os.Link(crunCopy, crun); err != nil {
		t.Fatal(err)
	}
	h.writeSpec(`{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":false},"process":{"args":["/entrypoint"],"big":12345678901234567890},` +
		`"annotations":{"a":"b"},"linux":{"namespaces":[{"type":"network"}],"resources":{"devices":[{"allow":false,"access":"rwm"}]}}}`)
	h.makeFirmware()
	h.env = map[string]string{
		"CCRUN_TEST_RUNTIME": h.dir, "TEST_CRUN": crun, "TEST_LIBRARY": h.fw.Path, "TEST_SEV": "/dev/zero",
		"FAKE_VERSION": goodVersion, "FAKE_RECORD": filepath.Join(h.dir, "record"), "LD_LIBRARY_PATH": "/before", "KEPT": "1",
		"GOCOVERDIR": t.TempDir(), // or each child of a coverage run warns on stderr
	}
	return h
}

// makeFirmware installs a library that BuildLibrary makes of loose files.
func (h *host) makeFirmware() {
	fw, err := firmware.FromParts(bytes.Repeat([]byte{1}, firmware.QBootBytes), bytes.Repeat([]byte{2}, 3<<16), 0x1000000, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	lib, err := firmware.BuildLibrary(fw, bytes.Repeat([]byte{3}, 4096))
	if err != nil {
		h.t.Fatal(err)
	}
	path := filepath.Join(h.dir, "installed.so")
	h.write(path, lib)
	if h.fw, err = firmware.Load(path); err != nil {
		h.t.Fatal(err)
	}
}

// workload puts the files of a workload image into the rootfs.
func (h *host) workload() *host {
	h.initrd = bytes.Repeat([]byte{7}, 5*4096)
	h.write(filepath.Join(h.rootfs, "initrd.img"), h.initrd)
	h.write(filepath.Join(h.rootfs, "disk.img"), make([]byte, 8192))
	h.write(filepath.Join(h.rootfs, "krun-sev.json"), []byte(`{"attestation_url":"https://a.example","cpus":2,"ram_mib":512,"tee":"snp","tee_data":"{}","workload_id":"w"}`))
	return h
}

func (h *host) writeSpec(s string) { h.write(filepath.Join(h.bundle, "config.json"), []byte(s)) }

func (h *host) write(path string, b []byte) {
	h.t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// run calls the runtime as Podman does. The record is nil if crun was not
// reached.
func (h *host) run(args ...string) (*record, string, int) {
	h.t.Helper()
	self, _ := os.Executable()
	cmd := exec.Command(self)
	cmd.Args = append([]string{"/usr/local/bin/krun"}, args...)
	cmd.Dir, cmd.Stdin = h.bundle, h.stdin
	for k, v := range h.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		h.t.Fatal("status 0 from a crun that returns 42")
	}
	b, err := os.ReadFile(h.env["FAKE_RECORD"])
	if err != nil {
		return nil, stderr.String(), cmd.ProcessState.ExitCode()
	}
	if err := os.Remove(h.env["FAKE_RECORD"]); err != nil {
		h.t.Fatal(err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		h.t.Fatal(err)
	}
	return &r, stderr.String(), cmd.ProcessState.ExitCode()
}

func (h *host) create() []string {
	return []string{"--root", "/run/x", "--log", filepath.Join(h.dir, "oci-log"), "--log-format=json", "create", "--bundle", h.bundle, "--pid-file", "/p", "c0ffee"}
}

func (h *host) config(old, new string) {
	path := filepath.Join(h.rootfs, "krun-sev.json")
	b, _ := os.ReadFile(path)
	h.write(path, bytes.Replace(b, []byte(old), []byte(new), 1))
}

func (h *host) link(name, target string) {
	path := filepath.Join(h.rootfs, name)
	_ = os.Remove(path)
	if err := os.Symlink(target, path); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) fifo(name string) {
	path := filepath.Join(h.rootfs, name)
	_ = os.Remove(path)
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
