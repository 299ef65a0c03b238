package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/sample/sampletest"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
)

// platform is one simulated platform for all tests.
var platform = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ccrun-sim-test-")
	if err != nil {
		return "", err
	}
	root := filepath.Join(dir, "root")
	if err := sampletest.Create(root, time.Now()); err != nil {
		return dir, err
	}
	kernel := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(kernel, bytes.Repeat([]byte("kernel"), 1000), 0o600); err != nil {
		return dir, err
	}
	_, err = firmware.WriteDir(filepath.Join(root, "firmware"), firmware.Sample{Kernel: kernel, Cmdline: "console=ttyS0 " + measure.StopsACPI})
	return dir, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := platform(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func platformRoot(t *testing.T) string {
	t.Helper()
	dir, err := platform()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "root")
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// makeImage is the root of a workload image; makeBundle puts Podman's
// configuration above it.
func makeImage(t *testing.T, dir string, tee kbs.TEE) {
	t.Helper()
	config := krun.TEEConfig{WorkloadID: "test", CPUs: 2, MemoryMiB: 512, TEE: tee, TEEData: "{}", AttestationURL: "https://127.0.0.1"}
	b, err := config.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, krun.TEEConfigFile), b)
	write(t, filepath.Join(dir, krun.InitrdFile), bytes.Repeat([]byte("initrd"), 2048))
	write(t, filepath.Join(dir, krun.DiskFile), make([]byte, 4096))
}

func makeBundle(t *testing.T) (bundle, image string) {
	t.Helper()
	bundle = t.TempDir()
	image = filepath.Join(bundle, "rootfs")
	s := podmanSpec(t)
	set(t, s, image, "root", "path")
	set(t, s, "80/tcp 53/udp", "annotations", krun.LabelPorts)
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(bundle, "config.json"), b)
	if err := os.MkdirAll(image, 0o755); err != nil {
		t.Fatal(err)
	}
	return bundle, image
}

// testRuntime finds a QEMU that is only there to be found.
func testRuntime(t *testing.T) *Runtime {
	t.Helper()
	bin := t.TempDir()
	write(t, filepath.Join(bin, "qemu-system-x86_64"), []byte("#!/bin/false\n"))
	if err := os.Chmod(filepath.Join(bin, "qemu-system-x86_64"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	host := t.TempDir()
	if err := os.MkdirAll(filepath.Join(host, "usr", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/lib", filepath.Join(host, "lib")); err != nil {
		t.Fatal(err)
	}
	return &Runtime{Binary: "/opt/ccrun-sim", Root: platformRoot(t), Crun: "/usr/bin/crun", HostRoot: host}
}

// command is what r executes for args.
func command(r *Runtime, args []string) ([]string, error) {
	c, err := Parse(append([]string{RuntimeName}, args...))
	if err != nil {
		return nil, err
	}
	return r.Command(c)
}

func TestRuntimeBootsWorkloadImages(t *testing.T) {
	r := testRuntime(t)
	bundle, image := makeBundle(t)
	makeImage(t, image, kbs.Sample)
	args := []string{"--log-format=json", "--log", "/x", "create", "--bundle", bundle, "--pid-file", "/p", "id"}
	before := readFile(t, filepath.Join(bundle, "config.json"))
	for range 2 { // the second time is a restart
		got, err := command(r, args)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"/usr/bin/crun", "--log-format=json", "--log", "/x", "create",
			"--bundle", bundle, "--pid-file", "/p", "--config", filepath.Join(bundle, specFile), "id"}
		if !slices.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
	}
	if !bytes.Equal(before, readFile(t, filepath.Join(bundle, "config.json"))) {
		t.Error("Podman's own configuration was changed; podman inspect reads it")
	}
	c, err := ReadConfig(filepath.Join(bundle, configFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Ports) != 2 || c.ImageDir != machine.InsideImage || c.ReadOnly || len(c.Warnings) == 0 {
		t.Errorf("VMM configuration %+v", c)
	}
	if link, err := os.Readlink(filepath.Join(bundle, rootDir, "lib")); err != nil || link != "usr/lib" {
		t.Errorf("link /lib of the VMM's root: %q %v", link, err)
	}
	spec := string(readFile(t, filepath.Join(bundle, specFile)))
	rewritten, err := crun.Command{Config: filepath.Join(bundle, specFile)}.Open()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range rewritten.Mounts {
		if d := m.Destination; d == "/" || d == "/usr" || d == "/usr/bin" || strings.HasPrefix(d, "/bin") {
			t.Errorf("%s: the host's programs are in the VMM's container; podman exec would run them beside the VM", d)
		}
	}
	if strings.Contains(spec, "/"+sample.PrivateDir) {
		t.Error("the simulated manufacturer's keys are visible in the container")
	}
}

// A configuration that the caller names is read, and ours stands after it:
// crun takes the last of several.
func TestRuntimeReplacesConfigOption(t *testing.T) {
	r := testRuntime(t)
	bundle, image := makeBundle(t)
	makeImage(t, image, kbs.Sample)
	other := filepath.Join(bundle, "other.json")
	if err := os.Rename(filepath.Join(bundle, "config.json"), other); err != nil {
		t.Fatal(err)
	}
	got, err := command(r, []string{"--root", "create", "create", "-b", bundle, "-f", "none.json", "--config=" + other, "id"})
	want := []string{"/usr/bin/crun", "--root", "create", "create", "-b", bundle, "-f", "none.json", "--config=" + other,
		"--config", filepath.Join(bundle, specFile), "id"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRuntimePassesTheRestToCrun(t *testing.T) {
	r := testRuntime(t)
	bundle, _ := makeBundle(t)
	for _, args := range [][]string{
		{"create", "--bundle", bundle, "id"},
		{"run", "-b", bundle, "id"},
		{"start", "id"}, {"kill", "id", "15"}, {"delete", "--force", "id"}, {"state", "id"},
		{"exec", "--process", "p.json", "id"}, {"--version"}, {},
	} {
		got, err := command(r, args)
		if err != nil || !slices.Equal(got, append([]string{"/usr/bin/crun"}, args...)) {
			t.Errorf("%q: %q %v", args, got, err)
		}
	}
	if entries, _ := os.ReadDir(bundle); len(entries) != 2 {
		t.Errorf("something was written for an image that is not ours: %v", entries)
	}
	got, err := command(r, []string{"--sample-root=/elsewhere", "--firmware", "/fw", "start", "--firmware", "id"})
	if err != nil || !slices.Equal(got, []string{"/usr/bin/crun", "start", "--firmware", "id"}) || r.Root != "/elsewhere" || r.Firmware != "/fw" {
		t.Errorf("own options: %q %v %+v", got, err, r)
	}
}

func TestRuntimeRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *Runtime, bundle, image string) error
		want   string
	}{
		"other TEE": {func(_ *Runtime, _, image string) error {
			makeImage(t, image, kbs.SNP)
			return nil
		}, "--tee sample"},
		"no platform": {func(r *Runtime, _, _ string) error { r.Root = "/nonexistent"; return nil }, "ccrun-sim init"},
		"no firmware": {func(r *Runtime, _, _ string) error { r.Firmware = "/nonexistent"; return nil }, "firmware.json"},
		"relative":    {func(r *Runtime, _, _ string) error { r.Firmware = "firmware"; return nil }, "absolute"},
		"no QEMU":     {func(*Runtime, string, string) error { return os.Setenv("PATH", "/nonexistent") }, "qemu-system-x86_64"},
		"bad JSON": {func(_ *Runtime, _, image string) error {
			return os.WriteFile(filepath.Join(image, krun.TEEConfigFile), []byte(`{"cpus":1,"cpus":2}`), 0o600)
		}, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			r := testRuntime(t)
			bundle, image := makeBundle(t)
			makeImage(t, image, kbs.Sample)
			if err := c.change(r, bundle, image); err != nil {
				t.Fatal(err)
			}
			_, err := command(r, []string{"create", "--bundle", bundle, "id"})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, expected something about %q", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(bundle, specFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a configuration was written all the same")
			}
		})
	}
}

// TestExec: nothing of the host's executes in the VM, and the user hears so.
func TestExec(t *testing.T) {
	r := testRuntime(t)
	bundle, image := makeBundle(t)
	state := t.TempDir()
	args := []string{"--root", state, "exec", "-d", "--process", "/p", "id"}
	write(t, filepath.Join(state, "id", "status"), []byte(`{"bundle":"`+bundle+`"}`))
	if got, err := command(r, args); err != nil || !slices.Equal(got[1:], args) {
		t.Errorf("another image: %q %v", got, err)
	}
	makeImage(t, image, kbs.Sample)
	if _, err := command(r, args); err == nil || !strings.Contains(err.Error(), "confidential VM") {
		t.Errorf("workload: %v", err)
	}
}

func TestIsWorkload(t *testing.T) {
	outside := t.TempDir()
	makeImage(t, outside, kbs.Sample)
	for name, c := range map[string]struct {
		change func(dir string) error
		want   bool
	}{
		"whole":          {func(string) error { return nil }, true},
		"no disk":        {func(dir string) error { return os.Remove(filepath.Join(dir, krun.DiskFile)) }, false},
		"no initrd":      {func(dir string) error { return os.Remove(filepath.Join(dir, krun.InitrdFile)) }, false},
		"link outside":   {relink(outside, krun.DiskFile), false},
		"link to device": {relink("/dev", krun.DiskFile), false},
		"directory": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, krun.InitrdFile)), os.Mkdir(filepath.Join(dir, krun.InitrdFile), 0o755))
		}, false},
	} {
		dir := t.TempDir()
		makeImage(t, dir, kbs.Sample)
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		if got, err := isWorkload(dir); err != nil || got != c.want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}

func relink(target, name string) func(string) error {
	return func(dir string) error {
		path := filepath.Join(dir, name)
		return errors.Join(os.Remove(path), os.Symlink(filepath.Join(target, name), path))
	}
}

func loadTestBoot(t *testing.T, image, fw string) *boot {
	t.Helper()
	root, err := os.OpenRoot(image)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	b, err := loadBoot(root, fw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The digest that the chip signs must be the one that `ccrun build` predicts
// from the same files, and no other for any change of them.
func TestDigestIsOfTheBytesThatBoot(t *testing.T) {
	fw := filepath.Join(platformRoot(t), "firmware")
	image := t.TempDir()
	makeImage(t, image, kbs.Sample)
	got, err := loadTestBoot(t, image, fw).digest()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := firmware.Load(fw)
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := measure.FromBundle(bundle, readFile(t, filepath.Join(image, krun.InitrdFile)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := measure.Launch(measure.QEMUDirect, inputs, measure.Shape{CPUs: 2, MemoryMiB: 512})
	if err != nil {
		t.Fatal(err)
	}
	if got != want.Digest {
		t.Errorf("booted %s, predicted %s", got, want.Digest)
	}
	changed := readFile(t, filepath.Join(image, krun.InitrdFile))
	changed[4] ^= 1
	write(t, filepath.Join(image, krun.InitrdFile), changed)
	if other, err := loadTestBoot(t, image, fw).digest(); err != nil || other == got {
		t.Errorf("one bit of the initrd changed, digest %s, %v", other, err)
	}
}

// TestPortsOfTheImage: Podman from 4.5.1 on hands over no annotations of an
// image, and save, load and kube play lose them.
func TestPortsOfTheImage(t *testing.T) {
	for annotation, want := range map[string]string{"": "[80/tcp 53/udp]", "9999/tcp": "[9999/tcp]"} {
		r := testRuntime(t)
		bundle, image := makeBundle(t)
		makeImage(t, image, kbs.Sample)
		hints, err := krun.Hints{Firmware: strings.Repeat("00", 32), Ports: []string{"80/tcp", "53/udp", "7/sctp"}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(image, krun.HintsFile), hints)
		s := podmanSpec(t)
		set(t, s, image, "root", "path")
		set(t, s, annotation, "annotations", krun.LabelPorts)
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(bundle, "config.json"), b)
		if _, err := command(r, []string{"create", "--bundle", bundle, "id"}); err != nil {
			t.Fatal(err)
		}
		c, err := ReadConfig(filepath.Join(bundle, configFile))
		if err != nil || fmt.Sprint(c.Ports) != want {
			t.Errorf("annotation %q: ports %v (%v), expected %s", annotation, c.Ports, err, want)
		}
		if strings.Contains(strings.Join(c.Warnings, "\n"), "7/sctp") != (annotation == "") {
			t.Errorf("warnings %q", c.Warnings)
		}
	}
}

func TestReadConfigIsStrict(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmm.json")
	for _, s := range []string{``, `{}`, `{"version":1}`, `{"version":2,"image_dir":"/a","firmware_dir":"/b","chip_dir":"/c","temp_dir":"/d","qemu":"/q","read_only":false}`,
		`{"version":1,"image_dir":"/a","firmware_dir":"/b","chip_dir":"/c","temp_dir":"/d","qemu":"/q","read_only":false,"more":1}`,
		`{"version":1,"image_dir":"/a","firmware_dir":"/b","chip_dir":"/c","temp_dir":"/d","qemu":"/q","read_only":false,"ports":[{"number":0,"protocol":"tcp"}]}`} {
		write(t, path, []byte(s))
		if c, err := ReadConfig(path); err == nil {
			t.Errorf("%s accepted: %+v", s, c)
		}
	}
}
