package volumefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
)

// container is one whose root has a disk.img of that content.
func container(t *testing.T, id, file, disk string) (crun.Command, *crun.Spec) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs", krun.DiskFile), []byte(disk), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{"root": map[string]any{"path": "rootfs"}, "annotations": map[string]string{krun.VolumesAnnotation: file}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	c := crun.Command{Verb: "create", ID: id, Bundle: dir, Root: filepath.Join(dir, "state")}
	s, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func hints() *krun.VolumeHints {
	return &krun.VolumeHints{Workload: "shop", FileBytes: krun.VolumesOffset + 1<<30, Names: []string{"data"}}
}

func head(t *testing.T, path string, n int) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(b, "\x00"))
}

// free makes the file as if the container that has it had ended.
func free(t *testing.T, path string) {
	t.Helper()
	s, err := readState(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Start++
	b, _ := json.Marshal(s)
	if err := os.WriteFile(path+stateSuffix, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAttach(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.vol")
	c, s := container(t, "one", path, "image")
	if _, _, err := Attach(c, s, hints()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if warnings, mount, err := Attach(c, s, nil); warnings != nil || mount != nil || err != nil {
		t.Errorf("no volumes: %v, %v, %v", warnings, mount, err)
	}
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	if err := Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	_, mount, err := Attach(c, s, hints())
	if err != nil || mount.Source != path || mount.Destination != "/"+krun.DiskFile || head(t, path, 64) != "image" {
		t.Fatalf("%+v, %v, head %q", mount, err, head(t, path, 64))
	}
	st, err := Inspect(path)
	if err != nil || !st.Attached || st.Container != "one" || st.SizeBytes != krun.VolumesOffset+krun.VolumeStride || st.AllocatedBytes > 1<<20 || len(st.Areas) != 0 {
		t.Errorf("attached: %+v, %v", st, err)
	}
	c2, s2 := container(t, "two", path, "other")
	for name, try := range map[string]func() error{
		"attached twice": func() error { _, _, err := Attach(c2, s2, hints()); return err },
		"removed":        func() error { return Remove(path) },
		"grown":          func() error { return Grow(path, 0, krun.MinVolumeBytes) },
		"backed up":      func() error { return Backup(path, new(bytes.Buffer)) },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), "attached to container one") {
			t.Errorf("%s while attached: %v", name, err)
		}
	}
	free(t, path)
	if err := os.WriteFile(filepath.Join(s.RootFS, krun.DiskFile), []byte("image of before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Attach(c, s, hints()); err != nil || head(t, path, 64) != "image" {
		t.Errorf("started again: %v, head %q", err, head(t, path, 64))
	}
	free(t, path)
	if _, _, err := Attach(c2, s2, hints()); err != nil || head(t, path, 64) != "other" {
		t.Errorf("another container: %v, head %q", err, head(t, path, 64))
	}
}

// TestFreeHalves: what a rekeyed volume has left is the host's again, once the
// volume's header says where it is, and nothing else is.
func TestFreeHalves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.vol")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	c, s := container(t, "one", path, "image")
	v, next := krun.Volume{}, krun.Volume{Slot: 1}
	places := []int64{v.Start() + 1<<20, v.Half(1) + 1<<20, v.Half(1) + 100<<30, next.Start() + 1<<20}
	for name, x := range map[string]struct {
		header krun.VolumeHeader
		kept   string
	}{
		"in the first half":      {krun.VolumeHeader{Bytes: 8 << 30}, "1001"},
		"in the second":          {krun.VolumeHeader{Bytes: 8 << 30, Half: 1}, "0111"},
		"being rekeyed":          {krun.VolumeHeader{Bytes: 8 << 30, Rekeying: true}, "1111"},
		"being rekeyed, once":    {krun.VolumeHeader{Bytes: 8 << 30, Half: 1, Rekeying: true}, "1111"},
		"of more than one half":  {krun.VolumeHeader{Bytes: 560 << 30}, "1101"},
		"of all of its own area": {krun.VolumeHeader{Bytes: krun.MaxVolumeBytes}, "1111"},
	} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		x.header.Workload, x.header.Name = "shop", "data"
		b, err := x.header.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, v.Start()); err != nil {
			t.Fatal(err)
		}
		for _, at := range places {
			if _, err := f.WriteAt([]byte("data"), at); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := Attach(c, s, hints()); err != nil {
			t.Fatal(err)
		}
		free(t, path)
		kept := ""
		for _, at := range places {
			if _, err := f.ReadAt(b[:4], at); err != nil {
				t.Fatal(err)
			}
			kept += map[bool]string{true: "1", false: "0"}[string(b[:4]) == "data"]
		}
		if h, used, err := header(f, 0); kept != x.kept || h != x.header || !used || err != nil {
			t.Errorf("%s: kept %s, expected %s; %+v, %v", name, kept, x.kept, h, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHeldByItsContainer: the file is the container's as long as crun's process
// for it lives, and no longer.
func TestHeldByItsContainer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.vol")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	c, s := container(t, "one", path, "image")
	if _, _, err := Attach(c, s, hints()); err != nil {
		t.Fatal(err)
	}
	free(t, path) // the runtime has ended, and left a process
	vm := exec.Command("sleep", "60")
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := crun.StartTime(vm.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	status := filepath.Join(c.Root, "one", "status")
	if err := os.MkdirAll(filepath.Dir(status), 0o700); err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(map[string]any{"pid": vm.Process.Pid, "process-start-time": start, "bundle": s.Bundle})
	if err := os.WriteFile(status, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err == nil || !strings.Contains(err.Error(), "attached") {
		t.Errorf("while its machine runs: %v", err)
	}
	_ = vm.Process.Kill()
	_ = vm.Wait()
	if err := Remove(path); err != nil {
		t.Errorf("after its machine's end: %v", err)
	}
	if _, err := os.Stat(path + stateSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left over: %v", err)
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "v.vol")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := krun.VolumeHeader{Workload: "shop", Name: "data", Cipher: "aes-xts", Bytes: krun.MinVolumeBytes}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	area := krun.Volume{Slot: 1}.Start()
	for at, b := range map[int64][]byte{0: []byte("an image, which is elsewhere"), area: h, area + 64<<20: bytes.Repeat([]byte("x"), 10000)} {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(area + 65<<20); err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	if err := Backup(path, &backup); err != nil || backup.Len() > 1<<20 {
		t.Fatalf("%d bytes, %v", backup.Len(), err)
	}
	whole := bytes.Clone(backup.Bytes())
	to := filepath.Join(dir, "again.vol")
	if err := Restore(to, &backup); err != nil {
		t.Fatal(err)
	}
	st, err := Inspect(to)
	if err != nil || len(st.Areas) != 1 || st.Areas[0].Workload != "shop" || st.Areas[0].Slot != 1 || st.SizeBytes != area+65<<20 || st.Attached {
		t.Errorf("restored: %+v, %v", st, err)
	}
	got := make([]byte, 10000)
	g, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.ReadAt(got, area+64<<20); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("x"), 10000)) || head(t, to, 64) != "" {
		t.Errorf("content: %v", err)
	}
	for i, cut := range []int{0, 5, len(backupMagic), 40, len(whole) / 2, len(whole) - 1} {
		bad := filepath.Join(dir, "bad.vol")
		if err := Restore(bad, bytes.NewReader(whole[:cut])); !errors.Is(err, errBackup) {
			t.Errorf("cut %d: %v", i, err)
		}
		if _, err := os.Stat(bad); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("cut %d: left over", i)
		}
	}
	for _, at := range []int{3, len(backupMagic) + 5, len(whole) / 2, len(whole) - 40, len(whole) - 3} {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		if err := Restore(filepath.Join(dir, "bad.vol"), bytes.NewReader(bad)); err == nil {
			t.Errorf("bit of byte %d flipped", at)
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(backupMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Restore(filepath.Join(t.TempDir(), "v.vol"), bytes.NewReader(b))
	})
}

func TestNamesOfFiles(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "../x", "a/b", "/", "/a/../b", "relative/x.vol", ".hidden"} {
		if path, err := Path("/dir", bad); err == nil {
			t.Errorf("%q is %s", bad, path)
		}
	}
	for name, want := range map[string]string{"shop": "/dir/shop.vol", "/srv/x.vol": "/srv/x.vol"} {
		if path, err := Path("/dir", name); err != nil || path != want {
			t.Errorf("%q is %s, %v", name, path, err)
		}
	}
	uidMap := filepath.Join(t.TempDir(), "uid_map")
	env := map[string]string{"HOME": "/home/u", "XDG_DATA_HOME": ""}
	for m, want := range map[string]string{"0 0 4294967295\n": SystemDir, "0 1000 1\n": "/home/u/.local/share/ccrun/volumes"} {
		if err := os.WriteFile(uidMap, []byte(m), 0o600); err != nil {
			t.Fatal(err)
		}
		if dir, err := dirOf(0, func(k string) string { return env[k] }, uidMap); err != nil || dir != want {
			t.Errorf("%q: %s, %v", m, dir, err)
		}
	}
}

// TestImageNamesAFileOfTheHost: an image names the file that its guest writes to,
// under Podman 4 by any path. What we have not made is left as it is.
func TestImageNamesAFileOfTheHost(t *testing.T) {
	dir := t.TempDir()
	small, long := filepath.Join(dir, "shadow"), filepath.Join(dir, "other.img")
	for _, path := range []string{small, long} {
		if err := os.WriteFile(path, []byte("the host's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(long, krun.VolumesOffset+krun.VolumeStride); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(long+stateSuffix, []byte(`{"version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{small, long} {
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		c, s := container(t, "one", path, "image")
		for what, try := range map[string]func() error{
			"attached": func() error { _, _, err := Attach(c, s, hints()); return err },
			"removed":  func() error { return Remove(path) },
			"grown":    func() error { return Grow(path, 0, krun.MinVolumeBytes) },
			"read":     func() error { return Backup(path, new(bytes.Buffer)) },
		} {
			if err := try(); err == nil || !strings.Contains(err.Error(), "is no volume file") {
				t.Errorf("%s %s: %v", path, what, err)
			}
		}
		if after, err := os.Stat(path); err != nil || after.Size() != before.Size() || head(t, path, 10) != "the host's" {
			t.Errorf("%s is another: %v", path, err)
		}
	}
	if _, err := os.Stat(small + stateSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file beside it: %v", err)
	}
}

// TestCopiedVolumeFile: a copy without what is beside it is one by its areas.
func TestCopiedVolumeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.vol")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	h, err := krun.VolumeHeader{Workload: "shop", Name: "data", Cipher: "aes-xts", Bytes: krun.MinVolumeBytes}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(h, krun.Volume{}.Start()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + stateSuffix); err != nil {
		t.Fatal(err)
	}
	c, s := container(t, "one", path, "image")
	if _, _, err := Attach(c, s, hints()); err != nil {
		t.Error(err)
	}
}

// TestAnotherFileOfThatName: what was beside a file that somebody deleted by hand
// says nothing of the one that takes its name.
func TestAnotherFileOfThatName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.vol")
	c, s := container(t, "one", path, "image")
	for range 2 {
		if err := Create(path); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Attach(c, s, hints()); err != nil || head(t, path, 10) != "image" {
			t.Errorf("head %q, %v", head(t, path, 10), err)
		}
		free(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReplacedMeanwhile: whoever locks a file that is gone has nothing.
func TestReplacedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := lockState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := isStill(f, path); err != nil {
		t.Error(err)
	}
	if g, err := lockState(path); err == nil {
		g.Close()
		t.Error("locked twice")
	}
	for _, replace := range []func() error{func() error { return os.Remove(path) }, func() error { return os.WriteFile(path, nil, 0o600) }} {
		if err := replace(); err != nil {
			t.Fatal(err)
		}
		if err := isStill(f, path); err == nil {
			t.Error("a file that was removed or replaced")
		}
	}
}

// watcher fails when the file is there before all of it was read.
type watcher struct {
	*bytes.Reader
	t    *testing.T
	path string
}

func (w *watcher) Read(p []byte) (int, error) {
	if _, err := os.Stat(w.path); !errors.Is(err, fs.ErrNotExist) {
		w.t.Errorf("there is half a file: %v", err)
	}
	return w.Reader.Read(p)
}

// TestRestoreIsWhole: no container finds half of a backup.
func TestRestoreIsWhole(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "v.vol"), filepath.Join(dir, "again.vol")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Backup(path, &b); err != nil {
		t.Fatal(err)
	}
	if err := Restore(to, &watcher{bytes.NewReader(b.Bytes()), t, to}); err != nil {
		t.Fatal(err)
	}
	if err := Restore(to, bytes.NewReader(b.Bytes())); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".ccrun*")); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if st, err := Inspect(to); err != nil || st.SizeBytes != leastBytes {
		t.Errorf("%+v, %v", st, err)
	}
}
