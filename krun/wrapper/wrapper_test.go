package wrapper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
)

func TestCreateWorkload(t *testing.T) {
	h := newHost(t).workload()
	h.env["TEST_RUN_VERSION"] = "1"
	r, stderr, code := h.run(h.create()...)
	if r == nil || code != 42 || stderr != "" {
		t.Fatalf("crun was not reached: status %d, %s", code, stderr)
	}
	if want := append([]string{"krun"}, h.create()...); !slices.Equal(r.Args, want) {
		t.Errorf("crun got %q, want %q", r.Args, want)
	}
	dir := filepath.Join(h.dir, "state", "c0ffee")
	if !slices.Contains(r.Env, "LD_LIBRARY_PATH="+dir+":/before") || !slices.Contains(r.Env, "KEPT=1") {
		t.Errorf("environment %q", r.Env)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v (%v), want mode 0700", info, err)
	}
	got, err := firmware.Load(filepath.Join(dir, firmware.LibraryName))
	if err != nil {
		t.Fatal(err)
	}
	want, err := h.fw.BootInitrd(h.initrd)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != h.fw.Digest || !bytes.Equal(got.Initrd, want) {
		t.Error("the library does not hold the host's kernel with the image's initrd")
	}
	checkSpec(t, r.Spec)
	if _, _, code := h.run("delete", "--force", "c0ffee"); code != 42 {
		t.Errorf("delete: status %d", code)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("delete left %s (%v)", dir, err)
	}
}

func checkSpec(t *testing.T, raw []byte) {
	t.Helper()
	want := `{"annotations":{"a":"b","krun.variant":"sev"},"linux":{"devices":[` +
		`{"path":"/dev/kvm","type":"c","major":1,"minor":3,"fileMode":438,"uid":0,"gid":0},{"path":"/dev/sev","type":"c","major":1,"minor":5,"fileMode":438,"uid":0,"gid":0}],` +
		`"namespaces":[{"type":"network"}],"resources":{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"}]}},` +
		`"ociVersion":"1.0.2","process":{"args":["/entrypoint"],"big":12345678901234567890,"capabilities":{},"noNewPrivileges":true},"root":{"path":"rootfs","readonly":false}}`
	if string(raw) != want {
		t.Errorf("config.json is\n%s\nwant\n%s", raw, want)
	}
}

// TestLoaderFindsTheLibrary opens it by its bare name, as libkrun does, in the
// environment that crun gets.
func TestLoaderFindsTheLibrary(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("gcc is needed in CI")
	}
	if err != nil {
		t.Skip("gcc is not installed")
	}
	h := newHost(t).workload()
	r, stderr, _ := h.run(h.create()...)
	if r == nil {
		t.Fatal(stderr)
	}
	src := filepath.Join(h.dir, "open.c")
	h.write(src, []byte(`#include <dlfcn.h>
#include <stdio.h>
int main(void) {
  void *h = dlopen("libkrunfw-sev.so.5", RTLD_NOW);
  if (!h) { puts(dlerror()); return 1; }
  char *(*initrd)(size_t *) = dlsym(h, "krunfw_get_initrd");
  size_t n; char *p = initrd(&n);
  return fwrite(p, 1, n, stdout) != n;
}`))
	if out, err := exec.Command(gcc, "-o", filepath.Join(h.dir, "open"), src, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(filepath.Join(h.dir, "open"))
	cmd.Env = r.Env
	out, err := cmd.Output()
	want, _ := h.fw.BootInitrd(h.initrd)
	if err != nil || !bytes.Equal(out, want) {
		t.Errorf("the loader gives %d bytes (%v), want the initrd of %d", len(out), err, len(want))
	}
}

func TestOtherImagesPassUntouched(t *testing.T) {
	h := newHost(t)
	before, _ := os.ReadFile(filepath.Join(h.bundle, "config.json"))
	r, stderr, code := h.run(h.create()...)
	if r == nil || code != 42 {
		t.Fatalf("status %d, %s", code, stderr)
	}
	if !bytes.Equal(r.Spec, before) || !slices.Contains(r.Env, "LD_LIBRARY_PATH=/before") {
		t.Error("the specification or the environment of another image was changed")
	}
	if _, stderr, _ := h.run("start", "c0ffee"); strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "ordinary microVM") {
		t.Errorf("told %q, expected one line that the image is not confidential", stderr)
	}
	for _, args := range [][]string{{"--version-unknown-to-us"}, {"start", "c0ffee"}, {"state", "x"}, {"kill", "x", "9"}, {"exec", "--tty", "x", "sh"}, {}} {
		if r, _, _ := h.run(args...); len(args) > 0 && args[0][0] != '-' && r == nil {
			t.Errorf("%q did not reach crun", args)
		}
	}
}

// TestSNPMachines: only KVM's own word ends a launch; what cannot be asked is
// left to libkrun.
func TestSNPMachines(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/dev/null", plain, "/nonexistent"} {
		if has, err := SNPMachines(path); has || err == nil {
			t.Errorf("%s: %v, %v, expected an error", path, has, err)
		}
	}
	h := newHost(t).workload()
	h.env["TEST_SNP"] = "unknown"
	if r, stderr, _ := h.run(h.create()...); r == nil || stderr != "" {
		t.Errorf("KVM that nobody can ask: %s", stderr)
	}
}

// TestClassicImage boots libkrunfw's own initrd: no library, but the check.
func TestClassicImage(t *testing.T) {
	h := newHost(t).workload()
	if err := os.Remove(filepath.Join(h.rootfs, "initrd.img")); err != nil {
		t.Fatal(err)
	}
	h.writeSpec(`{"root":{"path":"rootfs"},"process":{"args":["/entrypoint"],"env":["A=b"]},"linux":{"namespaces":[{"type":"network"}],"resources":{"memory":{"limit":1}}}}`)
	r, stderr, _ := h.run(h.create()...)
	if r == nil || !slices.Contains(r.Env, "LD_LIBRARY_PATH=/before") {
		t.Errorf("not passed on untouched: %s", stderr)
	} else if want := strconv.Itoa((512 + 256) << 20); !strings.Contains(string(r.Spec), want) {
		t.Errorf("not judged by the table: %s", r.Spec)
	}
	h.env["FAKE_VERSION"] = "crun version 1.24\n+SYSTEMD"
	if r, _, _ := h.run(h.create()...); r != nil {
		t.Error("run by a crun without libkrun")
	}
}

// TestCutAnnotation: `podman generate kube` cuts annotations to 63 characters,
// one less than a digest has. The image's own word counts.
func TestCutAnnotation(t *testing.T) {
	h := newHost(t).workload()
	hints, err := krun.Hints{Firmware: fmt.Sprintf("%x", h.fw.Digest)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	h.write(filepath.Join(h.rootfs, krun.HintsFile), hints)
	h.writeSpec(`{"root":{"path":"rootfs"},"process":{"args":["/entrypoint"]},"linux":{"namespaces":[{"type":"network"}]},` +
		`"annotations":{"` + krun.LabelFirmware + `":"` + fmt.Sprintf("%x", h.fw.Digest)[:63] + `"}}`)
	if r, stderr, _ := h.run(h.create()...); r == nil {
		t.Errorf("crun not reached: %s", stderr)
	}
}

// TestOtherFirmwareIsToldOf: an image runs on firmware that came after it, with a
// word about what else that needs; the key server judges.
func TestOtherFirmwareIsToldOf(t *testing.T) {
	for name, edit := range map[string]func(h *host){
		"annotation": func(h *host) {
			h.writeSpec(`{"root":{"path":"rootfs"},"process":{"args":["/entrypoint"]},"linux":{"namespaces":[{"type":"network"}]},"annotations":{"io.ccrun.firmware":"` + strings.Repeat("00", 32) + `"}}`)
		},
		"hints": func(h *host) {
			h.write(filepath.Join(h.rootfs, "ccrun.json"), []byte(`{"firmware":"`+strings.Repeat("00", 32)+`","ports":[],"version":1}`))
		},
	} {
		h := newHost(t).workload()
		edit(h)
		run := h.create()
		run[slices.Index(run, "create")] = "run"
		if r, stderr, _ := h.run(run...); r == nil || !strings.Contains(stderr, "not the one the image was built for") {
			t.Errorf("%s: reached crun: %v; %s", name, r != nil, stderr)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(h *host)
		want string
	}{
		"other image, crun without libkrun": {func(h *host) {
			h.env["FAKE_VERSION"] = "crun version 1.8.1\n+SYSTEMD"
			_ = os.Remove(filepath.Join(h.rootfs, "krun-sev.json"))
		}, "no confidential workload image"},
		"arguments": {func(h *host) {
			h.writeSpec(`{"root":{"path":"rootfs"},"process":{"args":["/entrypoint","ls"]}}`)
		}, "leave them out"},
		"terminal": {func(h *host) {
			h.writeSpec(`{"root":{"path":"rootfs"},"process":{"args":["/entrypoint"],"terminal":true}}`)
		}, "leave out -t"},
		"input":                {func(h *host) { h.stdin = strings.NewReader("password") }, "leave out -i"},
		"crun without libkrun": {func(h *host) { h.env["FAKE_VERSION"] = "crun version 1.24\n+SYSTEMD +LIBKRUNX" }, "without libkrun"},
		"old crun":             {func(h *host) { h.env["FAKE_VERSION"] = strings.Replace(goodVersion, "1.24", "1.20.9", 1) }, "expected 1.21"},
		"not crun":             {func(h *host) { h.env["FAKE_VERSION"] = "runc version 1.24 +LIBKRUN" }, "is not crun"},
		"no crun":              {func(h *host) { h.env["TEST_CRUN"] = "/nonexistent/crun" }, "finding crun"},
		"crun is ccrun":        {func(h *host) { self, _ := os.Executable(); h.env["TEST_CRUN"] = self }, "ccrun itself"},
		"no SEV":               {func(h *host) { h.env["TEST_SEV"] = "/nonexistent" }, "the host has no /dev/sev"},
		"SEV without SNP":      {func(h *host) { h.env["TEST_SNP"] = "no" }, "makes no SEV-SNP machines"},
		"SEV is a file":        {func(h *host) { h.env["TEST_SEV"] = h.fw.Path }, "not a character device"},
		"no library":           {func(h *host) { h.env["TEST_LIBRARY"] = "/nonexistent.so" }, "loading firmware"},
		"hostile library":      {func(h *host) { h.write(h.fw.Path, []byte("\x7fELF junk")) }, "not an"},
		"odd hints":            {func(h *host) { h.write(filepath.Join(h.rootfs, "ccrun.json"), []byte(`{}`)) }, "version 0"},
		"hints are out":        {func(h *host) { h.link("ccrun.json", h.fw.Path) }, "escapes"},
		"other variant": {func(h *host) {
			h.writeSpec(`{"root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"network"}]},"annotations":{"krun.variant":"aws-nitro"}}`)
		}, "expected sev"},
		"no root":      {func(h *host) { h.writeSpec(`{}`) }, "no root.path"},
		"broken spec":  {func(h *host) { h.writeSpec(`{`) }, "decoding"},
		"sample image": {func(h *host) { h.config(`"tee":"snp"`, `"tee":"sample"`) }, "krun-sim"},
		"tdx image":    {func(h *host) { h.config(`"tee":"snp"`, `"tee":"tdx"`) }, "TDX"},
		"odd config":   {func(h *host) { h.config(`"cpus":2`, `"cpus":2,"more":1`) }, "decoding /krun-sev.json"},
		"no disk":      {func(h *host) { _ = os.Remove(filepath.Join(h.rootfs, "disk.img")) }, "disk.img"},
		"empty disk":   {func(h *host) { h.write(filepath.Join(h.rootfs, "disk.img"), nil) }, "not a disk image"},
		"initrd too large": {func(h *host) {
			h.write(filepath.Join(h.rootfs, "initrd.img"), make([]byte, firmware.MaxLibkrunInitrdBytes+4096))
		}, "too large"},
		"odd initrd":            {func(h *host) { h.write(filepath.Join(h.rootfs, "initrd.img"), make([]byte, 100)) }, "multiple of 4096"},
		"initrd is a link out":  {func(h *host) { h.link("initrd.img", h.fw.Path) }, "escapes"},
		"config is a link out":  {func(h *host) { h.link("krun-sev.json", "../../../../../../etc/hostname") }, "escapes"},
		"initrd is a FIFO":      {func(h *host) { h.fifo("initrd.img") }, "expected a regular file"},
		"initrd is a directory": {func(h *host) { h.link("initrd.img", "."); _ = os.Mkdir(filepath.Join(h.rootfs, "d"), 0o755) }, "expected a regular file"},
		"volume over initrd": {func(h *host) {
			h.writeSpec(`{"root":{"path":"rootfs"},"mounts":[{"destination":"//initrd.img"}]}`)
		}, "a volume is mounted"},
		"state directory is open": {func(h *host) {
			_ = os.Mkdir(filepath.Join(h.dir, "state"), 0o755)
			_ = os.Chmod(filepath.Join(h.dir, "state"), 0o755)
		}, "mode 0700"},
		"state directory is a link": {func(h *host) { _ = os.Symlink(h.dir, filepath.Join(h.dir, "state")) }, "mode 0700"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t).workload()
			c.edit(h)
			r, stderr, code := h.run(h.create()...)
			if r != nil || code != 1 || !strings.Contains(stderr, c.want) {
				t.Errorf("status %d, reached crun %v, %q; want %q", code, r != nil, stderr, c.want)
			}
			if entries, _ := os.ReadDir(filepath.Join(h.dir, "state")); len(entries) != 0 && !strings.Contains(name, "link") {
				t.Errorf("left %v", entries)
			}
			checkLog(t, filepath.Join(h.dir, "oci-log"), stderr)
		})
	}
}

// checkLog expects the error as Podman reads it: one JSON object a line.
func checkLog(t *testing.T, path, stderr string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var l struct{ Msg, Level, Time string }
	if err := json.Unmarshal(b, &l); err != nil || l.Level != "error" || !strings.HasSuffix(strings.TrimSuffix(stderr, "\n"), l.Msg) {
		t.Errorf("log %q (%v)", b, err)
	}
	if _, err := time.Parse(time.RFC3339, l.Time); err != nil {
		t.Error(err)
	}
}

func TestHostileContainerID(t *testing.T) {
	h := newHost(t).workload()
	for _, id := range []string{"..", "../x", "a/b", ".new-x"} {
		args := h.create()
		args[len(args)-1] = id
		if r, _, _ := h.run(args...); r != nil {
			t.Errorf("container id %q accepted", id)
		}
	}
	victim := filepath.Join(h.dir, "victim")
	if err := os.Mkdir(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	h.run("delete", "../victim")
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("delete removed a directory outside: %v", err)
	}
}

func TestStaleLibrariesAreSwept(t *testing.T) {
	h := newHost(t).workload()
	args := h.create()
	args[len(args)-1] = "first"
	if r, stderr, _ := h.run(args...); r == nil {
		t.Fatal(stderr)
	}
	old := h.bundle
	h.bundle = filepath.Join(h.dir, "second")
	if err := os.Rename(old, h.bundle); err != nil {
		t.Fatal(err)
	}
	if r, stderr, _ := h.run(h.create()...); r == nil {
		t.Fatal(stderr)
	}
	entries, err := os.ReadDir(filepath.Join(h.dir, "state"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "c0ffee" {
		t.Errorf("state holds %v (%v), want c0ffee alone", entries, err)
	}
	// delete --regex takes patterns.
	h.run("delete", "-r", "^c0f+ee$")
	if entries, _ := os.ReadDir(filepath.Join(h.dir, "state")); len(entries) != 0 {
		t.Errorf("delete --regex left %v", entries)
	}
}

// TestKilledCreation: what a create was making when it was killed is removed by
// the next one, but not what one makes that only takes long.
func TestKilledCreation(t *testing.T) {
	h := newHost(t).workload()
	state := filepath.Join(h.dir, "state")
	now := time.Now()
	for name, age := range map[string]time.Duration{".new-killed": 2 * time.Minute, ".new-slow": 2 * time.Minute, ".new-just": 0} {
		dir := filepath.Join(state, name)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(state, 0o700), os.WriteFile(filepath.Join(dir, "x"), nil, 0o600), os.Chtimes(dir, now, now.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	release, err := hold(filepath.Join(state, ".new-slow"))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if r, stderr, _ := h.run(h.create()...); r == nil {
		t.Fatal(stderr)
	}
	if left, _ := filepath.Glob(filepath.Join(state, ".new-*")); len(left) != 2 {
		t.Errorf("left %v, expected .new-just and .new-slow", left)
	}
}

// TestPowerLoss: what ran when the host lost power is removed at the next
// start of anything, where its directory outlives the power.
func TestPowerLoss(t *testing.T) {
	h := newHost(t).workload()
	args := h.create()
	for _, id := range []string{"first", "second"} {
		args[len(args)-1] = id
		if r, stderr, _ := h.run(args...); r == nil {
			t.Fatal(stderr)
		}
	}
	h.env["TEST_BOOT"] = "the next boot"
	args[len(args)-1] = "second"
	if r, stderr, _ := h.run(args...); r == nil {
		t.Fatal(stderr)
	}
	entries, err := os.ReadDir(filepath.Join(h.dir, "state"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "second" {
		t.Errorf("state holds %v (%v), expected second alone", entries, err)
	}
}

// TestDeleteWithoutPATH: Podman deletes with next to no environment.
func TestDeleteWithoutPATH(t *testing.T) {
	h := newHost(t)
	h.env["TEST_CRUN"] = ""
	if r, stderr, _ := h.run("delete", "x"); r != nil || !strings.Contains(stderr, "install crun") {
		t.Errorf("crun found nowhere: %s", stderr)
	}
	h.env["TEST_CRUN_DIRS"] = "/nonexistent " + h.dir
	if r, stderr, _ := h.run("delete", "x"); r == nil {
		t.Errorf("crun not found in its directory: %s", stderr)
	}
}

// TestDebianCrun refuses the crun of Debian, which would run the image as a
// plain container and return 0.
func TestDebianCrun(t *testing.T) {
	out, err := RunVersion("/usr/bin/crun")
	if err != nil {
		t.Skip("no /usr/bin/crun: ", err)
	}
	if strings.Contains(out, "+LIBKRUN") {
		t.Skip("/usr/bin/crun is built with libkrun")
	}
	h := newHost(t).workload()
	h.env["TEST_CRUN"], h.env["TEST_RUN_VERSION"] = "/usr/bin/crun", "1"
	if _, stderr, code := h.run(h.create()...); code != 1 || !strings.Contains(stderr, "without libkrun") {
		t.Errorf("status %d, %s", code, stderr)
	}
}

// TestExec: the host cannot execute anything in a workload's VM, and says so;
// for other containers and what it does not know it leaves the answer to crun.
func TestExec(t *testing.T) {
	h := newHost(t)
	state := filepath.Join(h.dir, "crun-state", "c0ffee")
	if err := os.MkdirAll(state, 0o755); err != nil {
		t.Fatal(err)
	}
	exec := []string{"--root", filepath.Dir(state), "exec", "--pid-file", "/p", "--process", "/q", "-d", "c0ffee"}
	if r, stderr, _ := h.run(exec...); r == nil {
		t.Errorf("no state: crun not reached: %s", stderr)
	}
	h.write(filepath.Join(state, "status"), []byte(`{"pid":1,"bundle":"`+h.bundle+`"}`))
	if r, stderr, _ := h.run(exec...); r == nil {
		t.Errorf("another image: crun not reached: %s", stderr)
	}
	h.workload()
	if r, stderr, _ := h.run(exec...); r != nil || !strings.Contains(stderr, "confidential VM") {
		t.Errorf("workload: reached crun %v, %q", r != nil, stderr)
	}
	exec[len(exec)-1] = "../c0ffee"
	if r, _, _ := h.run(exec...); r == nil {
		t.Error("odd id: crun not reached")
	}
	exec[len(exec)-1] = "c0ffee"
	pod := newHost(t).infra()
	h.write(filepath.Join(state, "status"), []byte(`{"pid":1,"bundle":"`+pod.bundle+`"}`))
	pod.write(filepath.Join(pod.rootfs, "copied"), []byte("in by podman cp"))
	if r, stderr, _ := h.run(exec...); r != nil || !strings.Contains(stderr, "infra container") {
		t.Errorf("infra container: reached crun %v, %q", r != nil, stderr)
	}
}

// TestWarningsReachTheUser: each warning goes once to the standard error of the
// container that starts, which is its log and who is attached. What a runtime
// prints while it creates one is in the log only, or both, as it happens.
func TestWarningsReachTheUser(t *testing.T) {
	h := newHost(t).workload()
	const spec = `{"root":{"path":"rootfs"},"process":{"args":["/entrypoint"],"env":["A=hidden"]},"linux":{"namespaces":[{"type":"network"}]}}`
	const warning = `"A" does not reach`
	root := filepath.Join(h.dir, "crun-state")
	start := []string{"--root", root, "start", "c0ffee"}
	for _, initrd := range []bool{true, false} { // without, it is a classic image
		if !initrd {
			if err := os.Remove(filepath.Join(h.rootfs, "initrd.img")); err != nil {
				t.Fatal(err)
			}
		}
		h.writeSpec(spec)
		if r, stderr, _ := h.run(h.create()...); r == nil || stderr != "" {
			t.Errorf("create: reached crun %v, said %q", r != nil, stderr)
		}
		container := h.container(root)
		if r, stderr, _ := h.run(start...); r == nil || stderr != "" {
			t.Errorf("start: reached crun %v, said %q", r != nil, stderr)
		}
		if said := container(); strings.Count(said, warning) != 1 || strings.Contains(said, "hidden") {
			t.Errorf("the container's log has %q", said)
		}
		if r, stderr, _ := h.run(start...); r == nil || strings.Count(stderr, warning) != 1 {
			t.Errorf("start of a container that cannot be told: reached crun %v, said %q", r != nil, stderr)
		}
		if r, stderr, _ := h.run("start", "../c0ffee"); r == nil || stderr != "" {
			t.Errorf("odd id: %q", stderr)
		}
		h.run("delete", "c0ffee")
		if _, stderr, _ := h.run(start...); stderr != "" {
			t.Errorf("after delete: %q", stderr)
		}
		h.writeSpec(spec)
		run := h.create()
		run[slices.Index(run, "create")] = "run"
		if r, stderr, _ := h.run(run...); r == nil || strings.Count(stderr, warning) != 1 {
			t.Errorf("run: reached crun %v, said %q", r != nil, stderr)
		}
	}
}

// container starts a process in place of container c0ffee's, with crun's state
// below root. The function it returns ends it and says what it wrote to
// standard error.
func (h *host) container(root string) func() string {
	h.t.Helper()
	cmd := exec.Command("cat") // ends with its input
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "stat"))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "c0ffee"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.write(filepath.Join(root, "c0ffee/status"), fmt.Appendf(nil, `{"pid":%d,"process-start-time":%s,"bundle":%q}`,
		cmd.Process.Pid, strings.Fields(string(stat))[21], h.bundle))
	return func() string {
		_ = in.Close()
		b, _ := io.ReadAll(log)
		_ = cmd.Wait()
		return string(b)
	}
}
