package workload

import (
	"archive/tar"
	"fmt"
	"reflect"
	"strings"
	"testing"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// TestExposed: EXPOSE is information. moby#52553 has a range; what nobody can
// read is left out with a word.
func TestExposed(t *testing.T) {
	t.Parallel()
	var warnings []string
	warn := func(s string) { warnings = append(warnings, s) }
	in := map[string]struct{}{"33060-33061/tcp": {}, "80/TCP": {}, "53/udp": {}, "80": {}, "132/sctp": {}}
	got := exposed(in, warn)
	if want := []string{"132/sctp", "33060/tcp", "33061/tcp", "53/udp", "80/tcp"}; !reflect.DeepEqual(got, want) || warnings != nil {
		t.Errorf("%q, warnings %q", got, warnings)
	}
	for _, bad := range []string{"0/tcp", "http", "", "1/icmp", "65536", "9-8/tcp", "1-60000/tcp", "-1/tcp", "1-/tcp"} {
		warnings = nil
		if got := exposed(map[string]struct{}{bad: {}}, warn); got != nil || len(warnings) != 1 || !strings.Contains(warnings[0], fmt.Sprintf("%q", bad)) {
			t.Errorf("%q: %q, warnings %q", bad, got, warnings)
		}
	}
}

// TestConfigurationAsPodmanReadsIt: what Podman takes is no error.
func TestConfigurationAsPodmanReadsIt(t *testing.T) {
	t.Parallel()
	var warnings []string
	p := processOf(imgspec.ImageConfig{Env: []string{"FOO", "A=b=c", "=x", "B="}, WorkingDir: "app"}, func(s string) { warnings = append(warnings, s) })
	if want := []string{"FOO=", "A=b=c", "B="}; !reflect.DeepEqual(p.Env, want) || len(warnings) != 1 || p.WorkingDir != "/app" {
		t.Errorf("%+v, warnings %q", p, warnings)
	}
}

// TestUnheeded: what a guest does not do is said when the image is built.
func TestUnheeded(t *testing.T) {
	t.Parallel()
	c := imgspec.ImageConfig{Volumes: map[string]struct{}{"/data": {}}}
	at := func(kind krun.ScratchKind, volumes ...string) *DiskOptions {
		o := &DiskOptions{Scratch: krun.Scratch{Kind: kind}}
		for _, path := range volumes {
			o.Volumes = append(o.Volumes, krun.Volume{Path: path})
		}
		return o
	}
	for kind, want := range map[krun.ScratchKind]string{krun.ScratchDisk: "lost with the container", krun.ScratchMemory: "--scratch", krun.ScratchNone: "guest's memory"} {
		got := strings.Join(unheeded(c, true, at(kind, "/data/below", "/dat")), " ")
		for _, want := range []string{want, "HEALTHCHECK", "(/data)", "--volume NAME:PATH"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, expected %q", kind, got, want)
			}
		}
	}
	// What a volume holds is not lost, however the image writes its path.
	c.Volumes = map[string]struct{}{"/data/": {}, "data/below": {}, "/data/./x": {}}
	if got := unheeded(c, false, at(krun.ScratchDisk, "/data")); got != nil {
		t.Errorf("with a volume: %q", got)
	}
	if got := unheeded(imgspec.ImageConfig{}, false, at(krun.ScratchDisk)); got != nil {
		t.Errorf("without VOLUMEs: %q", got)
	}
}

// TestVolumes: directories that the image lacks are there, the user's own; what
// it has stays. Podman 4.3.1 gave the same owners and modes.
func TestVolumes(t *testing.T) {
	t.Parallel()
	for _, user := range []struct{ spec, owner string }{
		{"10001", "User: 10001   Group:     0"}, {"app", "User:  1000   Group:  1001"}, {"app:7", "User:  1000   Group:     7"}, {"", "User:     0   Group:     0"},
	} {
		layer := imagetest.Tar(t, imagetest.File{Name: "etc/passwd", Content: "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"},
			imagetest.File{Name: "has", Kind: tar.TypeDir, Mode: 0o700}, imagetest.File{Name: "has/content", Content: "kept"},
			imagetest.File{Name: "var/run", Kind: tar.TypeSymlink, Link: "/run"})
		m := &imagetest.Image{Config: imagetest.App(t).Config}
		m.Config.RootFS.DiffIDs = nil
		m.Config.Config.User = user.spec
		m.Config.Config.WorkingDir = "work/er"
		m.Config.Config.Volumes = map[string]struct{}{"/data": {}, "/deep/er": {}, "/has": {}, "/var/run/app": {}, "/tmp/x": {}}
		m.Add(imgspec.MediaTypeImageLayer, layer, layer)
		plain := buildPlain(t, m)
		for path, want := range map[string]string{
			"/data": "Mode: 0755 " + user.owner, "/deep": "Mode: 0755 User: 0 Group: 0", "/deep/er": "Mode: 0755 " + user.owner,
			"/has": "Mode: 0700 User: 0 Group: 0", "/run/app": "Mode: 0755 " + user.owner, "/work/er": "Mode: 0755 " + user.owner,
			"/tmp": "Mode:  01777 User: 0 Group: 0", "/tmp/x": "Mode: 0755 " + user.owner,
		} {
			got := spaces(imagetest.Tool(t, "debugfs", "-R", "stat "+path, plain))
			mode, owner, _ := strings.Cut(want, " User")
			if !strings.Contains(got, spaces(mode)) || !strings.Contains(got, spaces("User"+owner)) {
				t.Errorf("user %q: %s is %.200q, expected %s", user.spec, path, got, want)
			}
		}
		if got := imagetest.Tool(t, "debugfs", "-R", "cat /has/content", plain); !strings.HasSuffix(got, "kept") {
			t.Errorf("content of a volume: %q", got)
		}
	}
}

// spaces makes runs of white space one blank.
func spaces(s string) string { return strings.Join(strings.Fields(s), " ") }

// buildPlain builds m and decrypts its disk.
func buildPlain(t *testing.T, m *imagetest.Image) string {
	t.Helper()
	dir := t.TempDir()
	m.WriteLayout(t, dir)
	server := &fakeServer{}
	o := testOptions(t, server)
	o.Source = "oci:" + dir
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey)
}
