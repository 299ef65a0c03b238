package workload

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// TestStub runs the image's entrypoint as an ordinary runtime would.
func TestStub(t *testing.T) {
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

// TestSpool: what is on the disk is not what was written, and any seek gives
// the right bytes.
func TestSpool(t *testing.T) {
	s, err := newSpool(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	plain := []byte(strings.Repeat(imagetest.Canary, 40000))
	w := s.writer()
	for rest := plain; len(rest) > 0; {
		n := min(len(rest), 1+rand.IntN(70000))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, len(plain))
	if _, err := s.f.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(imagetest.Canary[:16])) {
		t.Error("spool holds plaintext")
	}
	if got, err := io.ReadAll(s.reader()); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("read back %d bytes: %v", len(got), err)
	}
	r := s.reader()
	for range 200 {
		off := rand.Int64N(int64(len(plain)))
		if _, err := r.Seek(off, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, rand.IntN(100))
		n, err := r.Read(b)
		if (err != nil && err != io.EOF) || !bytes.Equal(b[:n], plain[off:off+int64(n)]) {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	if st, err := os.ReadDir("/proc/self/fd"); err != nil || len(st) == 0 {
		t.Skip("no /proc")
	}
}

func TestSpaceError(t *testing.T) {
	err := spaceError(filepath.Join(t.TempDir(), "a", "b"), &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	var h interface{ Hint() string }
	if !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &h) {
		t.Errorf("%v", err)
	}
	if other := errors.New("x"); spaceError("/", other) != other || spaceError("/", nil) != nil {
		t.Error("changed another error")
	}
}

// TestSweepScratch: only old directories that nobody has locked go.
func TestSweepScratch(t *testing.T) {
	dir := t.TempDir()
	live, err := newScratch(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	dead := filepath.Join(dir, scratchPattern+"dead")
	imagetest.WriteFile(t, filepath.Join(dead, "storage1", "blob"), []byte("ciphertext"))
	other := filepath.Join(dir, "something-else")
	imagetest.WriteFile(t, filepath.Join(other, "x"), nil)
	sweepScratch(dir)
	if !imagetest.Exists(dead) {
		t.Error("a young directory was swept: its build may be about to lock it")
	}
	imagetest.Age(t, dir, 2*scratchGrace)
	sweepScratch(dir)
	if imagetest.Exists(dead) || !imagetest.Exists(live.dir) || !imagetest.Exists(other) {
		t.Errorf("dead %v, live %v, other %v", imagetest.Exists(dead), imagetest.Exists(live.dir), imagetest.Exists(other))
	}
}

func TestPayloadSize(t *testing.T) {
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
	const size = 100 << 30
	p := &payload{diskBytes: size, created: time.Now()}
	if n, err := p.sizeBytes(); err != nil || n < size {
		t.Errorf("layer of %d: %v", n, err)
	}
	head, err := archiveHeader("blobs/sha256/"+zeroes(64), size)
	if err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(bytes.NewReader(head)).Next()
	if err != nil || h.Size != size {
		t.Errorf("archive header says %v: %v", h, err)
	}
}

func TestShortDisk(t *testing.T) {
	p := &payload{diskBytes: 1000, created: time.Now(),
		writeDisk: func(_ context.Context, w io.Writer) error { _, err := w.Write(make([]byte, 999)); return err }}
	if err := p.write(t.Context(), io.Discard); err == nil {
		t.Error("accepted")
	}
}

func TestProcessOf(t *testing.T) {
	p, err := processOf(imgspec.ImageConfig{Cmd: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
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
		if got := slug(in); got != want || !krun.ValidWorkloadID(got) {
			t.Errorf("%s: %q, expected %q", in, got, want)
		}
	}
}

func TestKDFFor(t *testing.T) {
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
	if created, err := Register(t.Context(), server, r); err != nil || !created {
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
	o := testOptions(t, &fakeServer{})
	o.RecordPath = filepath.Join(t.TempDir(), "record")
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r, err := ReadRecord(o.RecordPath)
	if err != nil || len(r.DiskKey) != 0 {
		t.Fatalf("disk key of %d bytes in the record: %v", len(r.DiskKey), err)
	}
	if _, err := Register(t.Context(), &fakeServer{}, r); err == nil {
		t.Error("registered without a key")
	}
}

func TestReadRecordRefuses(t *testing.T) {
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
	server := &fakeServer{}
	o := testOptions(t, server)
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(t.Context(), o.System, o.Destination, server.Get)
	if err != nil {
		t.Fatal(err)
	}
	js := imagetest.JSON(t, in)
	if bytes.Contains(js, server.the(t).DiskKey) || bytes.Contains(js, []byte(imagetest.Canary)) {
		t.Error("inspection holds a secret")
	}
}

// TestInspectNotices what does not fit together.
func TestInspectNotices(t *testing.T) {
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

// TestNamedOutFile is an output on a file system without O_TMPFILE.
func TestNamedOutFile(t *testing.T) {
	dir := t.TempDir()
	f, err := os.CreateTemp(dir, ".ccrun-")
	if err != nil {
		t.Fatal(err)
	}
	o := &outFile{f, f.Name()}
	_, err = o.fill(t.Context(), 0, 7, func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "content")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "final")
	if err := errors.Join(o.publish(path, 0o644), o.Close()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if b, rerr := os.ReadFile(path); err != nil || rerr != nil || string(b) != "content" || len(entries) != 1 {
		t.Errorf("%q, %d entries: %v %v", b, len(entries), err, rerr)
	}
}
