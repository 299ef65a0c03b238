package workload

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// reproducibleOptions is what two machines that build the same would say.
func reproducibleOptions(t *testing.T, server *fakeServer) Options {
	o := testOptions(t, server)
	o.Reproducible, o.WorkloadID = true, "app"
	o.Passphrase = secret.New([]byte(strings.Repeat("5a", 32)))
	o.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	return o
}

func mustBuild(t *testing.T, o Options) *Result {
	t.Helper()
	r, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReproducible: another day, umask, time zone and TMPDIR, the same image;
// anything else in it, and not one key is the same.
func TestReproducible(t *testing.T) {
	for _, fs := range []string{"ext4", "erofs", "btrfs"} {
		server := &fakeServer{}
		o := reproducibleOptions(t, server)
		firmware := o.Firmware
		if o.Filesystem = fs; fs != "ext4" {
			o.SizeBytes = 0
		}
		first := mustBuild(t, o)
		out := readOutput(t, o.System, o.Destination)
		want, _ := identityOf(t, out)
		plain := out.decrypt(t, server.the(t).DiskKey)

		elsewhere := func(change func(*Options)) *Result {
			o := reproducibleOptions(t, &fakeServer{})
			o.Firmware, o.Filesystem = firmware, fs
			if fs != "ext4" {
				o.SizeBytes = 0
			}
			change(&o)
			return mustBuild(t, o)
		}
		umask, zone := syscall.Umask(0o077), time.Local
		time.Local = time.FixedZone("elsewhere", 5*3600+1800)
		second := elsewhere(func(*Options) {})
		syscall.Umask(umask)
		time.Local = zone
		if first.Digest != second.Digest || first.ImageID != second.ImageID {
			t.Errorf("%s: %s, then %s", fs, first.Digest, second.Digest)
		}
		for name, change := range map[string]func(*Options){
			"time":     func(o *Options) { o.Now = func() time.Time { return time.Unix(1_700_000_001, 0) } },
			"disk key": func(o *Options) { o.Passphrase = secret.New([]byte(strings.Repeat("5b", 32))) },
			"content":  func(o *Options) { changeLayer(t, o) },
			"cipher":   func(o *Options) { o.Cipher = luks.AEGIS128 },
		} {
			var dst string
			elsewhere(func(o *Options) { change(o); dst = o.Destination })
			id, _ := identityOf(t, readOutput(t, o.System, dst))
			if id.Disk.VolumeKeyDigest == want.Disk.VolumeKeyDigest || id.Disk.UUID == want.Disk.UUID {
				t.Errorf("%s: another %s has the same keys", fs, name)
			}
		}
		samePlaintext(t, o, plain)
	}
}

// samePlaintext: keys are what a plain build draws, and nothing else.
func samePlaintext(t *testing.T, o Options, plain string) {
	t.Helper()
	server := &fakeServer{}
	o.Registrar, o.Reproducible, o.Destination = server, false, "oci:"+filepath.Join(t.TempDir(), "plain")
	mustBuild(t, o)
	out := readOutput(t, o.System, o.Destination)
	a, err := os.ReadFile(plain)
	b, err2 := os.ReadFile(out.decrypt(t, server.the(t).DiskKey))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("a build with random keys made another file system")
	}
}

// changeLayer gives o a source with one more file.
func changeLayer(t *testing.T, o *Options) {
	m := imagetest.App(t)
	layer := imagetest.Tar(t, imagetest.File{Name: "etc/more", Content: "more"})
	m.Add("application/vnd.oci.image.layer.v1.tar", layer, layer)
	dir := t.TempDir()
	m.WriteLayout(t, dir)
	o.Source = "oci:" + dir
}

func TestReproducibleNeeds(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"a disk key":        func(o *Options) { o.Passphrase = secret.Bytes{} },
		"a random disk key": func(o *Options) { o.Passphrase = secret.New([]byte("correct horse battery staple")) },
		"64 digits":         func(o *Options) { o.Passphrase = secret.New([]byte(strings.Repeat("5a", 31))) },
		"a workload id":     func(o *Options) { o.WorkloadID = "" },
	} {
		o := reproducibleOptions(t, &fakeServer{})
		change(&o)
		if _, err := Build(t.Context(), o); !errors.Is(err, hint.ErrUsage) {
			t.Errorf("built without %s: %v", name, err)
		}
	}
	o := reproducibleOptions(t, &fakeServer{})
	o.Now = nil // then the source's own time
	want := time.Unix(0, 0)
	if c := imagetest.App(t).Config.Created; c != nil {
		want = *c
	}
	if r := mustBuild(t, o); !r.Registration.Created.Equal(want) {
		t.Errorf("built at %v, expected %v", r.Registration.Created, want)
	}
}

// TestNothingToShare is why disks are not cut into content-addressed chunks:
// two builds of one source have not one sector in common.
func TestNothingToShare(t *testing.T) {
	t.Parallel()
	seen := map[[4096]byte]bool{}
	equal, sectors := 0, 0
	for version := range 2 {
		o := testOptions(t, &fakeServer{})
		o.SizeBytes = 8 << 20
		mustBuild(t, o)
		disk := readOutput(t, o.System, o.Destination).files[krun.DiskFile]
		h, err := luks.ReadHeader(bytes.NewReader(disk), int64(len(disk)))
		if err != nil {
			t.Fatal(err)
		}
		g, err := h.Geometry()
		if err != nil {
			t.Fatal(err)
		}
		// What comes before, dm-integrity's empty journal, is no content.
		for at := g.TotalBytes() - g.PlainBytes; at+4096 <= g.TotalBytes(); at += 4096 {
			s := [4096]byte(disk[at:])
			if version == 1 {
				if sectors++; seen[s] {
					equal++
				}
			}
			seen[s] = true
		}
	}
	if equal > 0 || sectors < 1000 {
		t.Errorf("%d of %d sectors are equal", equal, sectors)
	}
}
