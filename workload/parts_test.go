package workload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// TestStub runs the image's entrypoint as an ordinary runtime would.
func TestStub(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "entrypoint")
	if err := os.WriteFile(path, stub(), 0o755); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path)
	cmd.Stderr, cmd.Env = &stderr, []string{}
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 125 {
		t.Fatalf("%v, expected exit status 125", err)
	}
	if stderr.String() != stubMessage {
		t.Errorf("it said %q", stderr.String())
	}
	if n := len(stub()); n > 512 {
		t.Errorf("stub of %d bytes", n)
	}
}

func TestPayloadSize(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, 511, 512, 4096, 100000} {
		p := &payload{teeConfig: []byte("{}"), initrd: make([]byte, 5000), diskBytes: n, created: time.Now(),
			writeDisk: func(_ context.Context, w io.Writer) error { _, err := w.Write(make([]byte, n)); return err }}
		var b bytes.Buffer
		want, err := p.sizeBytes()
		if err == nil {
			err = p.write(t.Context(), &b)
		}
		if err != nil || int64(b.Len()) != want {
			t.Errorf("%d: wrote %d, expected %d: %v", n, b.Len(), want, err)
		}
	}
}

// TestHugeSizes: headers of disks beyond 8 GiB, where tar's octal form ends.
func TestHugeSizes(t *testing.T) {
	t.Parallel()
	const size = 100 << 30
	p := &payload{diskBytes: size, created: time.Now()}
	if n, err := p.sizeBytes(); err != nil || n < size {
		t.Errorf("layer of %d: %v", n, err)
	}
}

func TestShortDisk(t *testing.T) {
	t.Parallel()
	p := &payload{diskBytes: 1000, created: time.Now(),
		writeDisk: func(_ context.Context, w io.Writer) error { _, err := w.Write(make([]byte, 999)); return err }}
	if err := p.write(t.Context(), io.Discard); err == nil {
		t.Error("accepted")
	}
}

func TestProcessOf(t *testing.T) {
	t.Parallel()
	p := processOf(imgspec.ImageConfig{Cmd: []string{"x"}}, nil)
	b, err := kbs.Canonical(p)
	if err != nil || string(b) != `{"Cmd":["x"],"Entrypoint":[],"Env":[],"StopSignal":"","User":"","WorkingDir":""}` {
		t.Errorf("%s %v", b, err)
	}
	var back krun.Process
	if err := kbs.UnmarshalCanonical(b, &back); err != nil {
		t.Error(err)
	}
}

func TestSlug(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"containers-storage:localhost/team/app:1.2":   "app",
		"docker://registry.example:5000/app:1":        "app",
		"docker://registry.example/app@sha256:0000":   "app",
		"oci:/x/y/layout:name":                        "layout",
		"oci:layout":                                  "layout",
		"oci-archive:/x/app.tar:name":                 "app",
		"docker-archive:app.tar":                      "app",
		"dir:/x/My App!":                              "My-App",
		"dir:/x/...":                                  "workload",
		"oci:/x/" + strings.Repeat("a", 200) + ":tag": strings.Repeat("a", 64),
	} {
		if got := slug(in); got != want || !kbs.ValidWorkloadID(got) {
			t.Errorf("%s: %q, expected %q", in, got, want)
		}
	}
}

func TestKDFFor(t *testing.T) {
	t.Parallel()
	for in, fast := range map[string]bool{
		strings.Repeat("0a", 32): true, strings.Repeat("0a", 31): false, strings.Repeat("0a", 33): false,
		strings.Repeat("0g", 32): false, "correct horse battery": false,
	} {
		if k := kdfFor(secret.New([]byte(in))); (k.Type == "pbkdf2") != fast || k.Validate() != nil {
			t.Errorf("%q: %+v", in, k)
		}
	}
}

// TestRecord: a build that registers nowhere leaves its key in the record,
// and the record registers the workload.
func TestRecord(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	o.RecordPath = filepath.Join(t.TempDir(), "record")
	res, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(o.RecordPath)
	if err != nil || st.Mode() != 0o600 {
		t.Fatalf("record: %v %v, expected mode 0600", st, err)
	}
	r, err := ReadRecord(o.RecordPath)
	if err != nil {
		t.Fatal(err)
	}
	server := &fakeServer{}
	if created, _, err := Register(t.Context(), server, r, nil); err != nil || !created {
		t.Fatalf("%v %v", created, err)
	}
	reg := server.the(t)
	if reg.Registration.Image != res.Digest {
		t.Error("registered another image")
	}
	readOutput(t, o.System, o.Destination).decrypt(t, reg.DiskKey)

	before, _ := os.ReadFile(o.RecordPath)
	o.Destination = "oci:" + filepath.Join(t.TempDir(), "other")
	if _, err := Build(t.Context(), o); !errors.Is(err, os.ErrExist) {
		t.Errorf("error %v, expected %v", err, os.ErrExist)
	}
	if after, _ := os.ReadFile(o.RecordPath); !bytes.Equal(before, after) {
		t.Error("record was overwritten: the first workload's key is lost")
	}
}

// TestRecordWithoutKey: what is registered already needs no second copy of
// the key.
func TestRecordWithoutKey(t *testing.T) {
	t.Parallel()
	o := testOptions(t, &fakeServer{})
	o.RecordPath = filepath.Join(t.TempDir(), "record")
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r, err := ReadRecord(o.RecordPath)
	if err != nil || len(r.DiskKey) != 0 {
		t.Fatalf("disk key of %d bytes in the record: %v", len(r.DiskKey), err)
	}
	if _, _, err := Register(t.Context(), &fakeServer{}, r, nil); err == nil {
		t.Error("registered without a key")
	}
}

func TestReadRecordRefuses(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	o.RecordPath = filepath.Join(t.TempDir(), "record")
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(o.RecordPath)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(string) string{
		"unknown member":   func(s string) string { return strings.Replace(s, `{"`, `{"x":1,"`, 1) },
		"other version":    func(s string) string { return strings.Replace(s, `"version":1}`, `"version":2}`, 1) },
		"other identity":   func(s string) string { return strings.Replace(s, `"identity":"ey`, `"identity":"eyJ`, 1) },
		"other workload":   func(s string) string { return strings.Replace(s, `"workload_id":"`, `"workload_id":"x`, 1) },
		"trailing data":    func(s string) string { return s + "{}" },
		"truncated":        func(s string) string { return s[:len(s)/2] },
		"empty":            func(string) string { return "" },
		"larger than 256K": func(s string) string { return s + strings.Repeat(" ", maxRecordBytes) },
	} {
		path := filepath.Join(t.TempDir(), "record")
		edited := edit(string(good))
		if edited == string(good) {
			t.Fatalf("%s: nothing edited", name)
		}
		imagetest.WriteFile(t, path, []byte(edited))
		if _, err := ReadRecord(path); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestPassphrase: an owner's passphrase opens the disk, and costs more to try.
func TestPassphrase(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	o.Passphrase = secret.New([]byte("correct horse battery staple"))
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := string(server.the(t).DiskKey); got != "correct horse battery staple" {
		t.Errorf("registered disk key %q", got)
	}
	in, err := Inspect(t.Context(), o.System, o.Destination, nil)
	if err != nil || len(in.Disk.Keyslots) != 1 || in.Disk.Keyslots[0].KDF != "argon2id" {
		t.Errorf("keyslots %+v: %v", in.Disk.Keyslots, err)
	}
	readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey)
}

func TestNoIntegrity(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	o.NoIntegrity = true
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	imagetest.Tool(t, "e2fsck", "-fn", readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey))
}

// TestCryptsetup opens a built disk with the real one.
func TestCryptsetup(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	disk, key := filepath.Join(t.TempDir(), "disk.img"), filepath.Join(t.TempDir(), "key")
	imagetest.WriteFile(t, disk, readOutput(t, o.System, o.Destination).files[krun.DiskFile])
	imagetest.WriteFile(t, key, server.the(t).DiskKey)
	imagetest.Tool(t, "cryptsetup", "open", "--test-passphrase", "--key-file", key, disk)
	in, err := Inspect(t.Context(), o.System, disk, server.Get)
	if err != nil || len(in.Problems) != 0 || in.Registered == nil || in.Disk.Geometry == nil {
		t.Errorf("inspection %+v: %v", in, err)
	}
}

// TestInspectNoSecret: nothing that inspection prints opens a disk.
func TestInspectNoSecret(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	res, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(t.Context(), o.System, o.Destination, server.Get)
	if err != nil || in.Image.Digest != res.Digest || in.Image.ID != res.ImageID {
		t.Fatalf("inspection of %s, %s: %+v, %v", res.Digest, res.ImageID, in, err)
	}
	js := imagetest.JSON(t, in)
	if bytes.Contains(js, server.the(t).DiskKey) || bytes.Contains(js, []byte(imagetest.Canary)) {
		t.Error("inspection holds a secret")
	}
}

// TestInspectNotices what does not fit together.
func TestInspectNotices(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	disk := readOutput(t, o.System, o.Destination).files[krun.DiskFile]
	for name, edit := range map[string]func([]byte) []byte{
		"no footer":     func(b []byte) []byte { return b[:len(b)-1] },
		"footer magic":  func(b []byte) []byte { b[len(b)-12] ^= 1; return b },
		"footer text":   func(b []byte) []byte { b[len(b)-20] = 0; return b },
		"footer length": func(b []byte) []byte { b[len(b)-8]++; return b },
	} {
		path := filepath.Join(t.TempDir(), "disk.img")
		imagetest.WriteFile(t, path, edit(bytes.Clone(disk)))
		if in, err := Inspect(t.Context(), o.System, path, nil); err == nil && len(in.Problems) == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	imagetest.WriteFile(t, path, []byte("not a disk"))
	if _, err := Inspect(t.Context(), o.System, path, nil); err == nil {
		t.Error("inspected something that is not a disk")
	}
	if _, err := Inspect(t.Context(), o.System, o.Source, nil); err == nil {
		t.Error("took an ordinary image for a workload image")
	}
}

func TestServerNamesNeedAResolver(t *testing.T) {
	named, address := []string{"https://192.0.2.1", "https://kbs.example:8443"}, []string{"https://192.0.2.1:8443", "https://[2001:db8::1]"}
	for _, c := range []struct {
		urls    []string
		network *krun.Network
		cmdline string
		ok      bool
	}{
		{address, nil, "", true},
		{named, nil, "", false},
		{named, &krun.Network{Mode: krun.NetworkNone}, "", false},
		{named, &krun.Network{DNS: []string{"9.9.9.9"}}, "", true},
		{named, nil, "quiet ccrun.net=10.0.2.15/24,10.0.2.2, panic=-1", false},
		{named, nil, "quiet ccrun.net=10.0.2.15/24,10.0.2.2,10.0.2.3", true},
		{named, nil, "xccrun.net=10.0.2.15/24,10.0.2.2,10.0.2.3", false},
	} {
		err := checkServerNames(c.urls, c.network, c.cmdline)
		if (err == nil) != c.ok {
			t.Errorf("%v, %+v, %q: %v", c.urls, c.network, c.cmdline, err)
		}
		if err != nil && !strings.Contains(hint.Of(err), "--dns") {
			t.Errorf("hint %q does not name --dns", hint.Of(err))
		}
	}
}

// TestAEGIS: the choice is in the identity, and image and scratch have it.
func TestAEGIS(t *testing.T) {
	server := &fakeServer{}
	o := testOptions(t, server)
	o.Filesystem, o.SizeBytes, o.Cipher = "btrfs", 0, luks.AEGIS128
	mustBuild(t, o)
	out := readOutput(t, o.System, o.Destination)
	id, _ := identityOf(t, out)
	if g := id.Disk.Geometry; g.Cipher != "aegis128-plain64" || g.VolumeKeyBytes != 16 || g.Integrity == nil || g.Integrity.Algorithm != "aead" || g.Integrity.TagBytes != 16 {
		t.Errorf("identity has %+v", g)
	}
	if s, err := id.Scratch.Geometry(id.Disk.Geometry); err != nil || s.CipherName() != luks.AEGIS128 || s.VolumeKeyBytes != 16 {
		t.Errorf("scratch is %+v, %v", s, err)
	}
	plain, err := os.ReadFile(out.decrypt(t, server.the(t).DiskKey))
	if err != nil || !bytes.Contains(plain, []byte("_BHRfS_M")) {
		t.Errorf("what the disk decrypts to is no BTRFS (%v)", err)
	}
	for name, change := range map[string]func(*Options){
		"unknown cipher":   func(o *Options) { o.Cipher = "aegis128l" },
		"LUKS2's name":     func(o *Options) { o.Cipher = "aes-xts-plain64" },
		"without its tags": func(o *Options) { o.NoIntegrity, o.Scratch.Kind = true, krun.ScratchMemory },
	} {
		o := testOptions(t, &fakeServer{})
		o.Filesystem, o.SizeBytes, o.Cipher = "btrfs", 0, luks.AEGIS128
		change(&o)
		if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "cipher") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
