package tests

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
)

// counts says how often it ran with the volume of /data, and what the image put
// there; each start adds a line, durably. The third goes on until it is killed.
const counts = `n=none; [ -e /data/lines ] && n=$(wc -l </data/lines)
echo had $n; cat /data/seed; echo line >>/data/lines; sync; echo END
if [ $n = 2 ]; then while :; do sleep 0.1; done; fi`

// volumeWorld is a world with an image that has a volume.
type volumeWorld struct {
	*world
	runtime string
	network string
	image   string
	file    string
}

// countsFlags are the build's, countsLayer what is in it.
var countsFlags = []string{"--volume", "data:/data,size=256m", "--scratch", "256m"}

func countsLayer(t *testing.T) []entry {
	return append(busyboxLayer(t), file("data/seed", 0o640, []byte("from the image\n")))
}

func (v *volumeWorld) start(flags ...string) result {
	v.t.Helper()
	args := append([]string{"run", "--rm", "--runtime", v.runtime, "--network", v.network, "--annotation", krun.VolumesAnnotation + "=" + v.file}, flags...)
	return v.run("podman", append(args, v.image)...)
}

// expect starts a container, which must find so much, or be refused in those words.
func (v *volumeWorld) expect(t *testing.T, what, want string) {
	t.Helper()
	r := v.start()
	if strings.HasPrefix(want, "had ") {
		if r.code != 0 || r.stdout != want+"\nfrom the image\nEND\n" {
			t.Errorf("%s: %s\nexpected %q", what, r, want)
		}
		return
	}
	// Under libkrun Podman sees 0, and the last line has the guest's own status.
	refused := r.code != 0 || v.runtime == "krun" && strings.Contains(r.stderr, "ccrun: exit status 77")
	if !refused || r.stdout != "" || !strings.Contains(r.stderr, want) {
		t.Errorf("%s: %s\nexpected it to be refused: %s", what, r, want)
	}
}

func (v *volumeWorld) saved(t *testing.T, name string) string {
	t.Helper()
	to := filepath.Join(v.dir, name)
	copySparse(t, v.file, to)
	return to
}

func (v *volumeWorld) status(t *testing.T) kbs.VolumeStatus {
	t.Helper()
	var all []kbs.VolumeStatus
	if err := json.Unmarshal([]byte(v.must("ccrun", "volume", "status", "counts", "--format", "json")), &all); err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return all[0]
}

// TestVolumes: what a workload writes to its volume outlives its container, under
// a key that only its guests get, and nothing but the state in which the last one
// left it opens.
func TestVolumes(t *testing.T) {
	w := newWorld(t)
	v := &volumeWorld{world: w, runtime: "krun-sim", network: "host", file: filepath.Join(w.dir, "volumes/counts.vol")}
	v.image = w.buildLayers("counts", shell(counts), [][]entry{countsLayer(t)}, countsFlags...)
	v.lives(t)
}

// TestVolumesOfLibkrun is TestVolumes on libkrunfw's kernel, behind crun.
func TestVolumesOfLibkrun(t *testing.T) {
	w := inRig(t)
	if w == nil {
		return
	}
	v := &volumeWorld{world: w.world, runtime: "krun", network: w.network(), file: filepath.Join(w.dir, "volumes/counts.vol")}
	src := filepath.Join(w.dir, "src/counts")
	writeOCI(t, src, shell(counts), countsLayer(t))
	v.image = w.buildFrom("counts", "oci:"+src, countsFlags...)
	v.expect(t, "no file", "ccrun volume create")
	v.must("ccrun", "volume", "create", v.file)
	v.expect(t, "first use", "had none")
	old := v.saved(t, "old.vol")
	v.expect(t, "another container", "had 1")
	if !soaking() { // which TestVolumes shows of the same agent
		return
	}
	copySparse(t, old, v.file)
	v.expect(t, "rolled back", "not as it was left")
	v.must("ccrun", "volume", "accept-rollback", "counts", "data")
	v.expect(t, "accepted", "had 1")
}

// lives goes through a volume's life. A boot is what costs: files that are refused
// for one reason are one here, and all of them in a soak.
func (v *volumeWorld) lives(t *testing.T) {
	v.expect(t, "no file", "ccrun volume create")
	v.must("ccrun", "volume", "create", v.file)
	v.expect(t, "first use", "had none")
	old := v.saved(t, "old.vol")
	v.expect(t, "another container", "had 1")
	left := v.saved(t, "left.vol")
	if st := v.status(t); st.Generation != 4 || st.Staged != 0 || st.ClosedAt == nil || st.Refused != "" {
		t.Errorf("after two starts: %+v", st)
	}
	if out := v.must("ccrun", "volume", "inspect", v.file); !strings.Contains(out, "counts") || !strings.Contains(out, "256MiB") {
		t.Errorf("inspect: %s", out)
	}

	copySparse(t, old, v.file)
	v.expect(t, "rolled back", "generation 2, the record says generation 4")
	v.explained(t, "generation 2, the record says generation 4")
	v.twisted(t, left)
	copySparse(t, old, v.file)
	v.must("ccrun", "volume", "accept-rollback", "counts", "data")
	v.expect(t, "accepted as it is", "had 1")
	if soaking() {
		now := v.saved(t, "now.vol")
		copySparse(t, left, v.file)
		v.expect(t, "accepted once", "not as it was left")
		copySparse(t, now, v.file)
	}
	v.killed(t)
	v.rekeyed(t)
	if r := v.run("ccrun", "workload", "rm", "counts"); r.code == 0 || !strings.Contains(r.stderr, "volume forget") {
		t.Errorf("removing a workload with volumes: %s", r)
	}
	v.must("ccrun", "volume", "rm", v.file)
	v.must("ccrun", "volume", "create", v.file)
	v.must("ccrun", "volume", "accept-rollback", "--empty", "counts", "data")
	v.expect(t, "accepted as lost", "had none")
}

// explained: the owner sees in the session's record what its guest was refused.
func (v *volumeWorld) explained(t *testing.T, want string) {
	t.Helper()
	st := v.status(t)
	if !strings.Contains(st.Refused, want) {
		t.Errorf("status: %+v\nexpected %s", st, want)
	}
	if out := v.must("ccrun", "explain", st.Session); !strings.Contains(out, "REFUSED volume data: ") || !strings.Contains(out, want) || !strings.Contains(out, "accept-rollback counts data") {
		t.Errorf("explain: %s\nexpected %s", out, want)
	}
}

// twisted gives the workload files that are not its own, or not whole.
func (v *volumeWorld) twisted(t *testing.T, left string) {
	defer copySparse(t, left, v.file)
	superblock := func() { copySparse(t, left, v.file); flip(t, v.file, krun.Volume{}.Start()+(1<<20)+16) }
	if !soaking() {
		superblock()
		v.expect(t, "superblock", "the record says generation 4")
		return
	}
	v.must("ccrun", "volume", "rm", v.file)
	v.must("ccrun", "volume", "create", v.file)
	v.expect(t, "emptied", "it is empty, the record says generation 4")
	other := v.world.buildLayers("other", shell(counts), [][]entry{countsLayer(t)}, countsFlags...)
	file, image := v.file, v.image
	v.file, v.image = filepath.Join(v.dir, "volumes/other.vol"), other
	v.must("ccrun", "volume", "create", v.file)
	v.expect(t, "another workload", "had none")
	v.file, v.image = file, image

	area := krun.Volume{}.Start()
	copySparse(t, filepath.Join(v.dir, "volumes/other.vol"), v.file)
	v.expect(t, "another workload's", "another volume is in its place")
	for name, twist := range map[string]func(){
		"another workload's under our header": func() {
			copySparse(t, filepath.Join(v.dir, "volumes/other.vol"), v.file)
			copyRange(t, left, v.file, area, krun.VolumeHeaderBytes)
		},
		"truncated":      func() { copySparse(t, left, v.file); truncate(t, v.file, area+(2<<20)) },
		"header flipped": func() { copySparse(t, left, v.file); flip(t, v.file, area+4) },
		"superblock":     superblock,
	} {
		twist()
		v.expect(t, name, "the record says generation 4")
	}
}

// killed: a machine that dies has closed nothing; its volume opens as it is, from
// a backup too, and meanwhile no other machine has it.
func (v *volumeWorld) killed(t *testing.T) {
	truncate(t, v.file, 1<<40*4) // grown: what is behind its area is nobody's
	v.must("podman", "run", "-d", "--name", "stays", "--runtime", v.runtime, "--network", v.network, "--annotation", krun.VolumesAnnotation+"="+v.file, v.image)
	defer v.run("podman", "rm", "-f", "-t", "1", "stays")
	v.awaitLog(t, "stays", "END")
	v.expect(t, "attached twice", "is attached to container")
	if r := v.run("ccrun", "volume", "rm", v.file); r.code == 0 || !strings.Contains(r.stderr, "stop that container first") {
		t.Errorf("removing an attached file: %s", r)
	}
	if st := v.status(t); st.Generation != 7 || st.ClosedAt != nil {
		t.Errorf("while it is open: %+v", st)
	}
	v.must("podman", "kill", "-s", "KILL", "stays")
	v.run("podman", "wait", "stays")
	v.must("ccrun", "volume", "backup", v.file, filepath.Join(v.dir, "backup"))
	v.must("ccrun", "volume", "rm", v.file)
	v.must("ccrun", "volume", "restore", v.file, filepath.Join(v.dir, "backup"))
	v.expect(t, "killed", "had 3")
}

// rekeyed: all that was in the volume is there under another key, also if power has
// gone meanwhile; the old key opens nothing any more.
func (v *volumeWorld) rekeyed(t *testing.T) {
	before := v.saved(t, "before.vol")
	v.must("ccrun", "volume", "rekey", "counts", "data")
	if soaking() {
		v.must("podman", "run", "-d", "--name", "cut", "--runtime", v.runtime, "--network", v.network, "--annotation", krun.VolumesAnnotation+"="+v.file, v.image)
		defer v.run("podman", "rm", "-f", "-t", "1", "cut")
		if !eventually(func() bool { return strings.Contains(v.run("podman", "logs", "cut").stderr, "gets a new key") }) {
			t.Fatal(v.run("podman", "logs", "cut"))
		}
		v.must("podman", "kill", "-s", "KILL", "cut")
		v.run("podman", "wait", "cut")
	}
	if st := v.status(t); !st.Rekey {
		t.Errorf("rekeyed too early: %+v", st)
	}
	r := v.start()
	if r.code != 0 || r.stdout != "had 4\nfrom the image\nEND\n" || !strings.Contains(r.stderr, "volume data has a new key") {
		t.Errorf("rekeyed: %s", r)
	}
	if st := v.status(t); st.Rekey || st.ClosedAt == nil {
		t.Errorf("after it: %+v", st)
	}
	if !soaking() {
		return
	}
	v.expect(t, "under the new key", "had 5")
	v.must("ccrun", "volume", "rekey", "counts", "data")
	v.expect(t, "back in the first half", "had 6")
	copySparse(t, before, v.file)
	v.expect(t, "under the old key", "does not open with its key")
}

// several counts the starts in two volumes, and tries to write to a third.
const several = `for v in data keep; do n=0; [ -e /$v/lines ] && n=$(wc -l </$v/lines); echo $v $n; echo line >>/$v/lines; done
cat /ref/seed; for f in /ref/seed /ref/new; do (echo x >$f) 2>/dev/null && echo WRITTEN; done; sync; echo END`

// TestSeveralVolumes: volumes of one file do not depend on each other, and one that
// is read-only cannot be written.
func TestSeveralVolumes(t *testing.T) {
	w := newWorld(t)
	v := &volumeWorld{world: w, runtime: "krun-sim", network: "host", file: filepath.Join(w.dir, "volumes/several.vol")}
	layer := append(busyboxLayer(t), file("ref/seed", 0o644, []byte("from the image\n")))
	v.image = w.buildLayers("several", shell(several), [][]entry{layer},
		"--volume", "data:/data,size=128m", "--volume", "ref:/ref,size=128m,ro", "--volume", "keep:/keep,size=128m,slot=7", "--scratch", "0")
	v.must("ccrun", "volume", "create", v.file)
	expect := func(what, data, keep string) {
		t.Helper()
		if r := v.start(); r.code != 0 || r.stdout != "data "+data+"\nkeep "+keep+"\nfrom the image\nEND\n" {
			t.Errorf("%s: %s", what, r)
		}
	}
	expect("first use", "0", "0")
	flip(t, v.file, krun.Volume{}.Start()+(1<<20)+16)
	if r := v.start(); r.code == 0 || r.stdout != "" || !strings.Contains(r.stderr, "accept-rollback --empty several data") {
		t.Errorf("one is damaged: %s", r)
	}
	v.must("ccrun", "volume", "accept-rollback", "--empty", "several", "data")
	expect("one is accepted as lost", "0", "1")
	if soaking() {
		expect("and goes on", "1", "2")
	}
}
