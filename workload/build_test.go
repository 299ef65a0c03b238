package workload

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/imagetest"
)

func TestBuild(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	res, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	reg := server.the(t)
	out := readOutput(t, o.System, o.Destination)
	checkFiles(t, out, reg)
	plain := out.decrypt(t, reg.DiskKey)
	imagetest.Tool(t, "e2fsck", "-fn", plain)
	for path, want := range map[string]string{"/etc/secret": imagetest.Canary, "/etc/new": "new\n"} {
		if got := imagetest.Tool(t, "debugfs", "-R", "cat "+path, plain); !strings.HasSuffix(got, want) {
			t.Errorf("%s holds %q, expected %q", path, got, want)
		}
	}
	if got := imagetest.Tool(t, "debugfs", "-R", "ls -p /etc", plain); strings.Contains(got, "/old/") {
		t.Errorf("whiteout not applied: %s", got)
	}
	proc := imagetest.Tool(t, "debugfs", "-R", "cat "+krun.ProcessPath, plain)
	proc = proc[strings.IndexByte(proc, '{'):]
	id, _ := identityOf(t, out)
	if got := krun.ProcessDigest(out.open(t, reg.DiskKey).Subkey(krun.ProcessKeyPurpose), []byte(proc)); got != id.ProcessDigest || got.IsZero() {
		t.Errorf("process digest is not of %s under the volume key", proc)
	}
	if res.Digest != reg.Registration.Image || !res.Registered {
		t.Errorf("result %+v does not fit the registration", res)
	}
	imagetest.NoCanary(t, filepath.Dir(strings.TrimPrefix(o.Destination, "oci:")), o.TempDir)
	imagetest.Empty(t, o.TempDir)
}

// TestBuildReadOnly: the other file systems, and nothing on them is lost.
func TestBuildReadOnly(t *testing.T) {
	t.Parallel()
	for fs, extract := range map[string]func(t *testing.T, disk, into string){
		"erofs": func(t *testing.T, disk, into string) {
			imagetest.Tool(t, "fsck.erofs", "--extract="+into, "--no-preserve", disk)
		},
		"btrfs": func(t *testing.T, disk, into string) {
			imagetest.Tool(t, "btrfs", "check", "--check-data-csum", disk)
			if err := os.Mkdir(into, 0o700); err != nil {
				t.Fatal(err)
			}
			imagetest.Tool(t, "btrfs", "restore", disk, into)
		},
	} {
		t.Run(fs, func(t *testing.T) {
			t.Parallel()
			server := &fakeServer{}
			o := testOptions(t, server)
			o.Filesystem = fs
			if _, err := Build(t.Context(), o); !errors.Is(err, hint.ErrUsage) {
				t.Fatalf("a size for a read-only file system: %v", err)
			}
			o.SizeBytes = 0
			if _, err := Build(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			out := readOutput(t, o.System, o.Destination)
			checkFiles(t, out, server.the(t))
			if id, _ := identityOf(t, out); id.Disk.Filesystem != fs {
				t.Errorf("identity says %q", id.Disk.Filesystem)
			}
			into := filepath.Join(t.TempDir(), "tree")
			extract(t, out.decrypt(t, server.the(t).DiskKey), into)
			for path, want := range map[string]string{"/etc/secret": imagetest.Canary, "/etc/new": "new\n"} {
				if got, err := os.ReadFile(into + path); err != nil || string(got) != want {
					t.Errorf("%s holds %q (%v), expected %q", path, got, err, want)
				}
			}
			if imagetest.Exists(into + "/etc/old") {
				t.Error("whiteout not applied")
			}
		})
	}
}

func checkFiles(t *testing.T, out *output, reg kbs.RegisterRequest) {
	t.Helper()
	modes := map[string]int64{"tmp/": 0o1777, "entrypoint": 0o555, "krun-sev.json": 0o444, "ccrun.json": 0o444, "initrd.img": 0o444, "disk.img": 0o600}
	for name, mode := range modes {
		if out.modes[name] != mode {
			t.Errorf("%s has mode %#o, expected %#o", name, out.modes[name], mode)
		}
	}
	if len(out.files) != len(modes) {
		t.Errorf("layer has %d entries, expected %d", len(out.files), len(modes))
	}
	disk := out.files[krun.DiskFile]
	f, err := krun.ReadFooter(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.JSON, out.files[krun.TEEConfigFile]) || len(disk)%krun.FooterAlign != 0 {
		t.Errorf("disk footer %s is not %s, or %d not aligned", f.JSON, krun.TEEConfigFile, len(disk))
	}
	if kbs.Sum384(f.JSON) != reg.Registration.FooterDigest {
		t.Error("footer digest is not the registered one")
	}
	id, digest := identityOf(t, out)
	if digest != reg.Registration.IdentityDigest || out.labels[krun.LabelIdentityDigest] != digest.String() {
		t.Error("identity digest is not the registered or labelled one")
	}
	if id.WorkloadID != reg.Registration.WorkloadID || !strings.HasPrefix(id.WorkloadID, "out-") {
		t.Errorf("workload id %q", id.WorkloadID)
	}
	hints, err := krun.DecodeHints(out.files[krun.HintsFile])
	if err != nil || hints.Firmware != out.labels[krun.LabelFirmware] || !slices.Equal(hints.Ports, []string{"53/udp", "8080/tcp"}) {
		t.Errorf("what a launch needs without labels is %+v (%v)", hints, err)
	}
	if got := out.labels[krun.LabelPorts]; got != "53/udp,8080/tcp" {
		t.Errorf("ports label %q", got)
	}
	if len(reg.DiskKey) != 64 || len(reg.Registration.ReferenceValues.Measurements) != 1 {
		t.Errorf("disk key of %d bytes, %d measurements", len(reg.DiskKey), len(reg.Registration.ReferenceValues.Measurements))
	}
}

func identityOf(t *testing.T, out *output) (*krun.Identity, kbs.Digest) {
	t.Helper()
	in := &Inspection{}
	in.initrd(out.files[krun.InitrdFile])
	if in.Initrd.Identity == nil {
		t.Fatal(in.Problems)
	}
	return in.Initrd.Identity, *in.Initrd.IdentityDigest
}

// TestMountPoints: the agent's mount points are made or replaced, an image's
// own links elsewhere stay, and an image cannot bring its own process file.
func TestMountPoints(t *testing.T) {
	t.Parallel()
	layout := t.TempDir()
	layer := imagetest.Tar(t,
		imagetest.File{Name: "tmp", Kind: tar.TypeSymlink, Link: "var/tmp"}, imagetest.File{Name: "proc", Kind: tar.TypeSymlink, Link: "etc"},
		imagetest.File{Name: krun.ProcessPath, Kind: tar.TypeSymlink, Link: "etc/evil"}, imagetest.File{Name: "etc/evil", Content: "evil"})
	m := &imagetest.Image{Config: imagetest.App(t).Config}
	m.Config.Config.User = "1000:1000"
	m.Config.RootFS.DiffIDs = nil
	m.Add(imgspec.MediaTypeImageLayer, layer, layer)
	m.WriteLayout(t, layout)
	server := &fakeServer{}
	o := testOptions(t, server)
	o.Source = "oci:" + layout
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	plain := readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey)
	for path, want := range map[string]string{
		"/tmp": "Type: symlink", "/proc": "Type: directory", "/sys": "Type: directory", "/run": "Type: directory",
		krun.ProcessPath: "Type: regular    Mode:  0400",
	} {
		if got := imagetest.Tool(t, "debugfs", "-R", "stat "+path, plain); !strings.Contains(got, want) {
			t.Errorf("%s is %q, expected %s", path, got, want)
		}
	}
}
