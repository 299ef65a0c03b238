package workload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// oldFirmware is a libkrun firmware whose initrd holds init.
func oldFirmware(t testing.TB, init string) string {
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"qboot": bytes.Repeat([]byte{0x90}, firmware.QBootBytes), "kernel": bytes.Repeat([]byte("kern"), 1<<16),
		"initrd": imagetest.Gzip(t, []byte(init)),
		firmware.ConfigFile: imagetest.JSON(t, firmware.Config{Version: 1, Kind: firmware.KindLibkrun, QBoot: "qboot", Kernel: "kernel",
			Initrd: "initrd", KernelLoad: 0x1000000}),
	} {
		imagetest.WriteFile(t, filepath.Join(dir, name), b)
	}
	return dir
}

type fakeLegacy struct {
	got []LegacyRegistration
	err error
}

func (f *fakeLegacy) RegisterLegacy(_ context.Context, r LegacyRegistration) error {
	f.got = append(f.got, r)
	return f.err
}

func classicOptions(t testing.TB, server LegacyRegistrar) ClassicOptions {
	from := testOptions(t, nil)
	o := ClassicOptions{
		Environment: from.Environment, SourceOptions: from.SourceOptions, MachineOptions: from.MachineOptions, DiskOptions: from.DiskOptions,
		Destination: from.Destination, Legacy: server,
	}
	o.TEE, o.MemoryMiB, o.Agent, o.SizeBytes = kbs.SNP, 2048, nil, 8<<20
	o.Servers = krun.Servers{URLs: []string{"http://kbs.example:8080"}}
	o.Firmware = oldFirmware(t, "init with /kbs/v0/auth in it")
	return o
}

func TestClassic(t *testing.T) {
	t.Parallel()
	server := &fakeLegacy{}
	o := classicOptions(t, server)
	res, err := BuildClassic(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(server.got) != 1 {
		t.Fatalf("%d registrations", len(server.got))
	}
	reg := server.got[0]
	if reg.WorkloadID != res.WorkloadID || reg.LaunchMeasurement != res.Measurements[string(measure.Libkrun112)] || len(reg.LaunchMeasurement) != 96 {
		t.Errorf("registration %+v does not fit %+v", reg, res)
	}
	if reg.TEEConfig != `{"flags":{"bits":3},"minfw":{"major":0,"minor":0}}` {
		t.Errorf("policy %s", reg.TEEConfig)
	}
	out := readOutput(t, o.System, o.Destination)
	modes := map[string]int64{"entrypoint": 0o755, "krun-sev.json": 0o600, "tmp/": 0o1777, "disk.img": 0o600}
	for name, mode := range modes {
		if out.modes[name] != mode {
			t.Errorf("%s has mode %#o, expected %#o", name, out.modes[name], mode)
		}
	}
	if len(out.files) != len(modes) {
		t.Errorf("%d entries, expected %d", len(out.files), len(modes))
	}
	checkClassicDisk(t, out, reg)
	imagetest.NoCanary(t, filepath.Dir(strings.TrimPrefix(o.Destination, "oci:")), o.TempDir)
	imagetest.Empty(t, o.TempDir)
}

func checkClassicDisk(t *testing.T, out *output, reg LegacyRegistration) {
	t.Helper()
	disk := out.files[krun.DiskFile]
	footer, err := krun.ReadFooter(bytes.NewReader(disk), int64(len(disk)))
	if err != nil || !bytes.Equal(footer.JSON, out.files[krun.TEEConfigFile]) || len(disk)%4096 != 0 {
		t.Fatalf("footer %v, disk of %d bytes, %v", footer, len(disk), err)
	}
	img, pass := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "pass")
	imagetest.WriteFile(t, img, disk)
	imagetest.WriteFile(t, pass, []byte(reg.Passphrase))
	imagetest.Tool(t, "cryptsetup", "--disable-locks", "open", "--test-passphrase", "--type", "luks1", "--key-file", pass, img)
	plain := plainV1(t, disk, footer.Start, reg.Passphrase)
	imagetest.Tool(t, "e2fsck", "-fn", plain)
	config := imagetest.Tool(t, "debugfs", "-R", "cat "+krun.ProcessPath, plain)
	want := `{"WorkingDir":"/srv","Cmd":["/bin/app","--serve"],"Env":["PATH=/bin","SECRET=` + imagetest.Canary + `"]}`
	if !strings.HasSuffix(config, want) {
		t.Errorf("configuration %s, expected %s", config, want)
	}
}

func plainV1(t testing.TB, disk []byte, end int64, pass string) string {
	t.Helper()
	h, err := luks.ReadV1Header(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	vk, err := h.Unlock(secret.New([]byte(pass)))
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Geometry(end)
	if err != nil {
		t.Fatal(err)
	}
	r, err := luks.NewReader(bytes.NewReader(disk), g, vk)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(r, 0, g.PlainBytes))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "plain")
	imagetest.WriteFile(t, path, b)
	return path
}

func TestClassicRecord(t *testing.T) {
	t.Parallel()
	o := classicOptions(t, nil)
	o.RecordPath = filepath.Join(t.TempDir(), "record")
	o.Passphrase = secret.New([]byte("correct horse battery staple"))
	if _, err := BuildClassic(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(o.RecordPath)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("record %v, %v", st, err)
	}
	r, err := ReadLegacyRecord(o.RecordPath)
	if err != nil || r.Passphrase != "correct horse battery staple" {
		t.Fatalf("record %+v, %v", r, err)
	}
	in, err := Inspect(t.Context(), o.System, o.Destination, nil)
	if err != nil {
		t.Fatal(err)
	}
	if in.Disk.Format != "LUKS1" || in.Disk.Geometry == nil || in.Disk.Geometry.PlainBytes != o.SizeBytes ||
		len(in.Disk.Keyslots) != 1 || in.Disk.Keyslots[0].Iterations != classicIterations || len(in.Problems) > 0 {
		t.Errorf("inspection %+v, geometry %+v", in, in.Disk.Geometry)
	}
}

func TestClassicRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*ClassicOptions){
		"new init":      func(o *ClassicOptions) { o.Firmware = oldFirmware(t, "mounts /dev/vda") },
		"no initrd":     func(o *ClassicOptions) { o.Firmware = testFirmware(t) },
		"sample":        func(o *ClassicOptions) { o.TEE = kbs.Sample },
		"two servers":   func(o *ClassicOptions) { o.Servers.URLs = append(o.Servers.URLs, "https://b") },
		"long id":       func(o *ClassicOptions) { o.WorkloadID = strings.Repeat("w", 70) },
		"erofs":         func(o *ClassicOptions) { o.Filesystem = "erofs" },
		"btrfs":         func(o *ClassicOptions) { o.Filesystem = "btrfs" },
		"lost key":      func(o *ClassicOptions) { o.Legacy = nil },
		"profile":       func(o *ClassicOptions) { o.Profile = "qemu-direct" },
		"line end":      func(o *ClassicOptions) { o.Passphrase = secret.New([]byte("0123456789ab\ncd")) },
		"registration":  func(o *ClassicOptions) { o.Legacy = &fakeLegacy{err: errors.New("no")} },
		"URL with user": func(o *ClassicOptions) { o.Servers.URLs = []string{"http://u@h"} },
	} {
		o := classicOptions(t, &fakeLegacy{})
		change(&o)
		if _, err := BuildClassic(t.Context(), o); err == nil {
			t.Errorf("%s: built", name)
		}
		if _, err := os.Stat(strings.TrimSuffix(strings.TrimPrefix(o.Destination, "oci:"), ":app") + "/index.json"); err == nil {
			t.Errorf("%s: published", name)
		}
	}
}

// TestClassicProcess: the old init finds its members in any string.
func TestClassicProcess(t *testing.T) {
	t.Parallel()
	if _, err := classicProcess(imgspec.ImageConfig{Cmd: []string{"/bin/x", "EntryPoint"}}, nil); err == nil {
		t.Error("an argument that the old init takes for a member")
	}
	b, err := classicProcess(imgspec.ImageConfig{Entrypoint: []string{"/bin/x", "<&>"}}, nil)
	if want := `{"WorkingDir":"/","Cmd":["/bin/x","<&>"],"Env":[]}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, expected %s", b, err, want)
	}
}

// mkcwImage is an image as `buildah mkcw` makes it, with mke2fs's ext4.
func mkcwImage(t testing.TB, pass string) string {
	t.Helper()
	root, img := t.TempDir(), filepath.Join(t.TempDir(), "fs")
	config := imgspec.Image{Config: imgspec.ImageConfig{Cmd: []string{"/bin/app", "-x"}, Env: []string{"A=b"}, User: "7", WorkingDir: "/srv"}}
	for name, b := range map[string][]byte{
		"bin/app": []byte("#!" + imagetest.Canary), "srv/data": bytes.Repeat([]byte(imagetest.Canary), 10_000), ".krun_config.json": imagetest.JSON(t, config),
	} {
		imagetest.WriteFile(t, filepath.Join(root, name), b)
	}
	if out, err := exec.Command("/sbin/mke2fs", "-q", "-t", "ext4", "-d", root, img, "16M").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mke2fs: %v %s", err, out)
		}
		t.Skipf("mke2fs: %v %s", err, out)
	}
	plain, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	g, err := luks.V1Geometry("11111111-2222-4333-8444-555555555555", int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	vk, err := luks.NewVolumeKey(strings.NewReader(strings.Repeat("k", 64)), g)
	if err != nil {
		t.Fatal(err)
	}
	var disk bytes.Buffer
	w, err := luks.NewV1Writer(&disk, g, vk, secret.New([]byte(pass)), luks.WriterOptions{KDF: luks.FastKDF(), Rand: strings.NewReader(strings.Repeat("r", 1<<20))})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(plain)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	js := `{"tee":"snp","tee_data":"{\"gen\":\"milan\"}","workload_id":"` + strings.Repeat("ab", 32) + `","cpus":2,"ram_mib":512,"attestation_url":"http://kbs:1"}`
	disk.Write(krun.AppendFooter(int64(disk.Len()), []byte(js)))
	m := &imagetest.Image{Config: imgspec.Image{Platform: imgspec.Platform{OS: "linux", Architecture: "amd64"},
		Config: imgspec.ImageConfig{Entrypoint: []string{"/entrypoint"}}, RootFS: imgspec.RootFS{Type: "layers"}}}
	layer := imagetest.Tar(t, imagetest.File{Name: "entrypoint", Content: "elf", Mode: 0o755}, imagetest.File{Name: "krun-sev.json", Content: js, Mode: 0o600},
		imagetest.File{Name: "tmp/", Kind: '5', Mode: 0o1777}, imagetest.File{Name: "disk.img", Content: disk.String(), Mode: 0o600})
	m.Add(imgspec.MediaTypeImageLayerGzip, layer, imagetest.Gzip(t, layer))
	dir := t.TempDir()
	m.WriteLayout(t, dir)
	return "oci:" + dir
}

func TestInspectMkcw(t *testing.T) {
	t.Parallel()
	in, err := Inspect(t.Context(), imagetest.System(t), mkcwImage(t, "0123456789abcdef"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if in.Disk.Format != "LUKS1" || in.Disk.Geometry.PlainBytes != 16<<20 || in.TEEConfig == nil || in.TEEConfig.MemoryMiB != 512 || len(in.Problems) > 0 {
		t.Errorf("inspection %+v of %+v", in, in.Disk.Geometry)
	}
}

func TestConvertMkcw(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	o.Source = mkcwImage(t, "0123456789abcdef")
	once := o
	once.Destination = "oci:" + filepath.Join(t.TempDir(), "once")
	warned := ""
	once.Warn, once.SizeBytes = func(s string) { warned += s }, 0
	if _, err := Build(t.Context(), once); err != nil || !strings.Contains(warned, "workload image already") {
		t.Fatalf("workload image of a workload image: %v, warned %q", err, warned)
	}
	server = &fakeServer{}
	o.Registrar = server
	o.SourcePassphrase = secret.New([]byte("wrong wrong wrong"))
	if _, err := Build(t.Context(), o); !errors.Is(err, luks.ErrWrongPassphrase) {
		t.Fatalf("wrong passphrase: %v", err)
	}
	o.SourcePassphrase = secret.New([]byte("0123456789abcdef"))
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	out := readOutput(t, o.System, o.Destination)
	plain := out.decrypt(t, server.the(t).DiskKey)
	imagetest.Tool(t, "e2fsck", "-fn", plain)
	if got := imagetest.Tool(t, "debugfs", "-R", "cat /bin/app", plain); !strings.HasSuffix(got, "#!"+imagetest.Canary) {
		t.Errorf("/bin/app holds %q", got)
	}
	config := imagetest.Tool(t, "debugfs", "-R", "cat "+krun.ProcessPath, plain)
	for _, want := range []string{`"Cmd":["/bin/app","-x"]`, `"User":"7"`, `"WorkingDir":"/srv"`} {
		if !strings.Contains(config, want) {
			t.Errorf("process %s lacks %s", config, want)
		}
	}
	imagetest.NoCanary(t, filepath.Dir(strings.TrimPrefix(o.Destination, "oci:")), o.TempDir)
	imagetest.Empty(t, o.TempDir)
}

// TestConvertOurs reads LUKS2 with integrity too.
func TestConvertOurs(t *testing.T) {
	t.Parallel()
	first := testOptions(t, &fakeServer{})
	first.Passphrase = secret.New([]byte(strings.Repeat("ab", 32)))
	if _, err := Build(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	o := testOptions(t, &fakeServer{})
	o.Source, o.SourcePassphrase = first.Destination, secret.New([]byte(strings.Repeat("ab", 32)))
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o = testOptions(t, &fakeServer{})
	o.SourcePassphrase = secret.New([]byte("not a workload image"))
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "not a workload image") {
		t.Errorf("ordinary image with a passphrase: %v", err)
	}
}

func TestLegacyClient(t *testing.T) {
	t.Parallel()
	var got []byte
	status := http.StatusOK
	mux := http.NewServeMux()
	mux.HandleFunc("POST /kbs/v0/register_workload", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer tok" {
			status = http.StatusUnauthorized
		}
		got, _ = io.ReadAll(r.Body)
		w.WriteHeader(status)
	})
	mux.HandleFunc("/away/", http.RedirectHandler("/elsewhere", http.StatusTemporaryRedirect).ServeHTTP)
	s := httptest.NewTLSServer(mux)
	defer s.Close()
	c := &LegacyClient{URL: s.URL, Token: secret.New([]byte("tok")), RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	r := LegacyRegistration{WorkloadID: "w", LaunchMeasurement: "ab", Passphrase: "p", TEEConfig: "{}"}
	if err := c.RegisterLegacy(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if have, err := DecodeLegacyRecord(got); err != nil || *have != r {
		t.Errorf("server got %s (%v)", got, err)
	}
	status = http.StatusForbidden
	if err := c.RegisterLegacy(t.Context(), r); err == nil {
		t.Error("refusal not reported")
	}
	for _, url := range []string{s.URL + "/away", "http://127.0.0.1:1"} {
		c.URL = url
		if err := c.RegisterLegacy(t.Context(), r); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
	c.URL, c.RootCAs = s.URL, nil
	if err := c.RegisterLegacy(t.Context(), r); err == nil {
		t.Error("unknown server trusted")
	}
}

// TestRealMkcw converts an image that buildah's mkcw has made. CCRUN_BUILDAH is
// a buildah with mkcw (1.39 or later; Debian 13 has one), or the one in PATH.
func TestRealMkcw(t *testing.T) {
	t.Parallel()
	buildah := os.Getenv("CCRUN_BUILDAH")
	if buildah == "" {
		buildah = "buildah"
	}
	if exec.Command(buildah, "mkcw", "--help").Run() != nil || os.Geteuid() != 0 {
		t.Skip("no buildah with mkcw, or not root")
	}
	o := testOptions(t, &fakeServer{})
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		args = append([]string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}, args...)
		c := exec.Command(buildah, args...)
		c.Env = append(os.Environ(), "TMPDIR="+dir)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("buildah %v: %v\n%s", args, err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return lines[len(lines)-1]
	}
	m := imagetest.App(t)
	m.Config.Config.Env = append(m.Config.Config.Env, "GREETING=from mkcw")
	m.WriteLayout(t, dir+"/layout")
	imagetest.WriteFile(t, dir+"/policy.json", imagetest.Read(t, o.System.SignaturePolicyPath))
	id := run("pull", "-q", "--signature-policy", dir+"/policy.json", "oci:"+dir+"/layout")
	run("mkcw", "--type", "snp", "--cpus", "2", "--memory", "512", "--passphrase", "old passphrase 123", "--workload-id", "old", id, "localhost/cw")
	run("push", "-q", "--signature-policy", dir+"/policy.json", "localhost/cw", "oci:"+dir+"/cw:app")

	in, err := Inspect(t.Context(), o.System, "oci:"+dir+"/cw:app", nil)
	if err != nil || len(in.Problems) > 0 || in.Disk.Format != "LUKS1" || in.TEEConfig == nil || in.TEEConfig.WorkloadID != "old" || in.TEEConfig.CPUs != 2 {
		t.Fatalf("inspection %+v, %v", in, err)
	}
	server := &fakeServer{}
	o.Registrar, o.Source, o.SizeBytes = server, "oci:"+dir+"/cw:app", 0
	o.SourcePassphrase = secret.New([]byte("old passphrase 123"))
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	plain := readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey)
	imagetest.Tool(t, "e2fsck", "-fn", plain)
	process := imagetest.Tool(t, "debugfs", "-R", "cat "+krun.ProcessPath, plain)
	for _, want := range []string{`"GREETING=from mkcw"`, `"User":"1000:1000"`, `"Entrypoint":["/bin/app"]`, `"WorkingDir":"/srv"`} {
		if !strings.Contains(process, want) {
			t.Errorf("process %s lacks %s", process, want)
		}
	}
	if got := imagetest.Tool(t, "debugfs", "-R", "cat /srv/data", plain); !strings.HasSuffix(got, strings.Repeat(imagetest.Canary+"\n", 5000)) {
		t.Error("/srv/data is wrong")
	}
	if got := imagetest.Tool(t, "debugfs", "-R", "stat /bin/sh", plain); !strings.Contains(got, `Fast link dest: "app"`) {
		t.Errorf("/bin/sh is %s", got)
	}
}
