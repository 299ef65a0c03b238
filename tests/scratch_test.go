package tests

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
)

// The workload of these tests says what it finds of the last start's, and then
// writes its own: a pair of files that belong together, and a larger one with
// its sum.
const remembers = `r=$(head -c 8 /dev/urandom | md5sum | cut -c1-16)
if [ -e /auth ]; then
  a=$(cat /auth) && d=$(cat /data) && echo "found ${a%% *} ${d%% *}"
  if s=$(md5sum </bulk); then [ "$s" = "$(cat /sum)" ] && echo bulk right || echo bulk WRONG; else echo bulk lost; fi
else echo nothing found; fi
i=0; while [ $i -lt 500 ]; do printf "$r "; i=$((i+1)); done >/auth.new; cp /auth.new /data.new
head -c 2097152 /dev/urandom >/bulk; md5sum </bulk >/sum; mv /auth.new /auth; mv /data.new /data; sync
echo wrote $r; echo END`

const scratchSize = 512 << 20

// scratchWorld is a rig with an image whose containers' disks are in the hands of
// a host.
type scratchWorld struct {
	*rigWorld
	geometry   luks.Geometry // of the scratch area
	imageBytes int64
}

// newScratchWorld is nil outside the rig.
func newScratchWorld(t *testing.T) *scratchWorld {
	w := inRig(t)
	if w == nil {
		return nil
	}
	image, err := luks.NewGeometry(interopUUID, 1<<20, luks.AESXTS, true) // for its cipher
	if err != nil {
		t.Fatal(err)
	}
	g, err := krun.Scratch{Kind: krun.ScratchDisk, Bytes: scratchSize}.Geometry(image)
	if err != nil {
		t.Fatal(err)
	}
	return &scratchWorld{rigWorld: w, geometry: g}
}

// TestScratch: what a guest writes is its container's own, and survives the
// container's stops and kills.
func TestScratch(t *testing.T) {
	s := newScratchWorld(t)
	if s == nil {
		return
	}
	t.Run("kept by its container", s.kept)
	t.Run("refused by policy", s.refused)
	t.Run("in memory", s.inMemory)
	t.Run("read-only", s.readOnly)
	t.Run("killed while it writes", s.killed)
}

// create makes a container and returns its id and its disk's length.
func (s *scratchWorld) create(t *testing.T, image string) string {
	t.Helper()
	id := strings.TrimSpace(s.must("podman", "create", "--runtime", "krun", "--network", s.network(), image))
	t.Cleanup(func() { s.run("podman", "rm", "-f", "-t", "1", id) })
	return id
}

// length is that of a container's disk.
func (s *scratchWorld) length(t *testing.T, id string) (n int64) {
	t.Helper()
	s.disk(t, id, func(path string) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		n = info.Size()
	})
	return n
}

func (s *scratchWorld) start(id string) result { return s.run("podman", "start", "-a", id) }

// disk lets change look at and alter the disk of a stopped container.
func (s *scratchWorld) disk(t *testing.T, id string, change func(path string)) {
	t.Helper()
	root := strings.TrimSpace(s.must("podman", "mount", id))
	defer s.must("podman", "umount", id)
	change(filepath.Join(root, "disk.img"))
}

// saved is a copy of a container's disk, as sparse as it is.
func (s *scratchWorld) saved(t *testing.T, id, name string) string {
	t.Helper()
	to := filepath.Join(s.dir, name)
	s.disk(t, id, func(path string) { copySparse(t, path, to) })
	return to
}

func copySparse(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copying: %v: %s", err, out)
	}
}

var (
	foundPair = regexp.MustCompile(`(?m)^found ([0-9a-f]{16}) ([0-9a-f]{16})$`)
	wroteOne  = regexp.MustCompile(`(?m)^wrote ([0-9a-f]{16})$`)
)

// wrote is what the guest of r wrote.
func wrote(t *testing.T, r result) string {
	t.Helper()
	m := wroteOne.FindStringSubmatch(r.stdout)
	if m == nil {
		t.Fatalf("it wrote nothing: %s", r)
	}
	return m[1]
}

func found(r result, id string) bool {
	return strings.Contains(r.stdout, "found "+id+" "+id+"\nbulk right\n")
}

func (s *scratchWorld) kept(t *testing.T) {
	image := s.build("remembers", shell(remembers), "--scratch", "512MiB")
	one, other := s.create(t, image), s.create(t, image)
	s.imageBytes = s.length(t, one)
	var before [sha256.Size]byte
	s.disk(t, one, func(path string) { before = sumOf(t, path, s.imageBytes) })
	first := s.start(one)
	if !strings.Contains(first.stdout, "nothing found") {
		t.Fatal(first)
	}
	if r := s.start(other); !strings.Contains(r.stdout, "nothing found") || wrote(t, r) == wrote(t, first) {
		t.Errorf("another container of the image: %s", r)
	}
	second := s.start(one)
	if !found(second, wrote(t, first)) {
		t.Errorf("after a stop: %s\nexpected what the first start wrote: %s", second, first)
	}
	if soaking() {
		if third := s.start(one); !found(third, wrote(t, second)) {
			t.Errorf("after two stops: %s\nexpected what the second start wrote: %s", third, second)
		}
	}
	s.disk(t, one, func(path string) {
		if sumOf(t, path, s.imageBytes) != before {
			t.Error("the image was written to")
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() != s.imageBytes+s.geometry.TotalBytes() || blocks(info) > s.imageBytes+64<<20 {
			t.Errorf("%d bytes that take %d of an image of %d (%v), expected a sparse area of %d", info.Size(), blocks(info), s.imageBytes, err, s.geometry.TotalBytes())
		}
	})
}

func sumOf(t *testing.T, path string, n int64) (sum [sha256.Size]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(h, f, n); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// TestScratchOfAHost gives a container disks that were made of two containers' disks and of
// older states. Of all of them the guest finds a whole state that one of them
// had, or it says that it begins anew, or it cannot read: never parts of two.
func TestScratchOfAHost(t *testing.T) {
	s := newScratchWorld(t)
	if s == nil {
		return
	}
	image := s.build("remembers", shell(remembers), "--scratch", "512MiB")
	a, b := s.create(t, image), s.create(t, image)
	s.imageBytes = s.length(t, a)
	states := map[string]string{}
	keep := func(name, id string) string {
		states[name] = wrote(t, s.start(id))
		return s.saved(t, id, name)
	}
	base, other := keep("a", a), keep("b", b)
	later := keep("a2", a)
	var fork, alien string
	if soaking() {
		s.disk(t, a, func(path string) { copySparse(t, base, path) })
		fork = keep("a3", a) // a second start from the same state
		alien = keep("foreign", s.create(t, s.build("foreign", shell(remembers), "--scratch", "512MiB")))
	}

	area := s.geometry.TotalBytes()
	victim := s.create(t, image)
	// Of a kind that others, or TestScratch, show as well: for a soak.
	siblings := []string{"untouched", "grown", "header zeroed", "area gone", "cut", "dm-integrity's superblock", "an image's of another name",
		"another instance's data", "another instance's header", "half of an older state's sectors", "half of another start's sectors"}
	for _, c := range []struct {
		name string
		make func(t *testing.T, disk string)
		want string // of states; "": begins anew, or not all can be read
	}{
		{"untouched", func(t *testing.T, disk string) {}, "a2"},
		{"grown", func(t *testing.T, disk string) { truncate(t, disk, s.imageBytes+area+1<<20) }, "a2"},
		{"a whole older state", func(t *testing.T, disk string) { copySparse(t, base, disk) }, "a"},
		{"another instance's area", func(t *testing.T, disk string) { copySparse(t, other, disk) }, "b"},
		{"header zeroed", func(t *testing.T, disk string) { zero(t, disk, s.imageBytes, 4096) }, ""},
		{"area gone", func(t *testing.T, disk string) { truncate(t, disk, s.imageBytes) }, ""},
		{"cut", func(t *testing.T, disk string) { truncate(t, disk, s.imageBytes+4<<20) }, ""},
		{"bit of the wrapped key", func(t *testing.T, disk string) { flip(t, disk, s.imageBytes+100) }, ""},
		{"dm-integrity's superblock", func(t *testing.T, disk string) { flip(t, disk, s.imageBytes+s.geometry.DataOffsetBytes+16) }, ""},
		{"bits everywhere", func(t *testing.T, disk string) { s.each(t, disk, func(at int64) { flip(t, disk, at+7) }) }, ""},
		{"an image's of another name", func(t *testing.T, disk string) { copyRange(t, alien, disk, s.imageBytes, area) }, ""},
		{"another instance's data", func(t *testing.T, disk string) {
			copyRange(t, other, disk, s.imageBytes+s.geometry.DataOffsetBytes, area-s.geometry.DataOffsetBytes)
		}, ""},
		{"another instance's header", func(t *testing.T, disk string) { copyRange(t, other, disk, s.imageBytes, 4096) }, ""},
		{"half of another instance's sectors", func(t *testing.T, disk string) { s.splice(t, disk, base, other, 2) }, ""},
		{"sectors of an older state", func(t *testing.T, disk string) { s.splice(t, disk, "", base, 20) }, ""},
		{"half of an older state's sectors", func(t *testing.T, disk string) { s.splice(t, disk, "", base, 2) }, ""},
		{"half of another start's sectors", func(t *testing.T, disk string) { s.splice(t, disk, base, fork, 2) }, ""},
	} {
		if slices.Contains(siblings, c.name) && !soaking() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			s.disk(t, victim, func(disk string) {
				copySparse(t, later, disk)
				c.make(t, disk)
			})
			r := s.start(victim)
			if strings.Contains(r.stdout, "WRONG") {
				t.Errorf("bytes that no guest wrote: %s", r)
			}
			pair := foundPair.FindStringSubmatch(r.stdout)
			switch {
			case pair != nil && pair[1] != pair[2]:
				t.Errorf("parts of two states: %s", r)
			case c.want != "" && !found(r, states[c.want]):
				t.Errorf("%s\nexpected the state of %s, %s", r, c.want, states[c.want])
			case c.want == "" && pair == nil && !strings.Contains(r.stdout, "nothing found") && !strings.Contains(r.stderr, "nput/output error"):
				t.Errorf("neither a new scratch area nor an I/O error: %s", r)
			}
			t.Logf("%.200s%.300s", r.stdout, r.stderr)
		})
	}
}

// each calls do with the offset of every block of 4096 bytes of the area behind
// the header that is not a hole.
func (s *scratchWorld) each(t *testing.T, disk string, do func(at int64)) {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const seekData, seekHole = 3, 4
	for at := s.imageBytes + s.geometry.DataOffsetBytes; ; {
		from, err := f.Seek(at, seekData)
		if err != nil {
			return
		}
		if at, err = f.Seek(from, seekHole); err != nil {
			t.Fatal(err)
		}
		for ; from < at; from += 4096 {
			do(from)
		}
	}
}

// splice puts every n-th sector in which from differs from disk, and from base if
// that is given, with its tag, in disk.
func (s *scratchWorld) splice(t *testing.T, disk, base, from string, n int) {
	t.Helper()
	files := map[string]*os.File{}
	for _, path := range []string{disk, base, from} {
		if path == "" {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[path] = f
	}
	read := func(path string, at int64, n int) []byte {
		b := make([]byte, n)
		if _, err := files[path].ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		return b
	}
	differing, moved := 0, 0
	for plain := int64(0); plain < 64<<20; plain += 4096 { // BTRFS allocates from the start
		data, tag := s.sector(plain)
		now, then := read(disk, data, 4096), read(from, data, 4096)
		if bytes.Equal(now, then) || base != "" && bytes.Equal(read(base, data, 4096), then) {
			continue
		}
		if differing++; differing%n != n/2 {
			continue
		}
		moved++
		_, err1 := files[disk].WriteAt(then, data)
		_, err2 := files[disk].WriteAt(read(from, tag, s.geometry.Integrity.TagBytes), tag)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d sectors differ, %d moved", differing, moved)
	if moved == 0 {
		t.Errorf("none of %d sectors that differ was moved: the case shows nothing", differing)
	}
}

// sector is where on the disk a sector of the area and its tag are, which anyone
// can compute: dm-integrity's layout.
func (s *scratchWorld) sector(plain int64) (data, tag int64) {
	i := s.geometry.Integrity
	up := func(n, to int64) int64 { return (n + to - 1) / to * to }
	entry := up(8+8*8+int64(i.TagBytes), 8)
	section := 504/entry*8*8 + 8
	run := int64(512) << i.Log2InterleaveSectors
	tagRun := up(run/4096*int64(i.TagBytes), 4096)
	start := s.imageBytes + s.geometry.DataOffsetBytes + (8+section*int64(i.JournalSections))*512
	return start + (plain/run+1)*tagRun + plain, start + plain/run*(tagRun+run) + plain%run/4096*int64(i.TagBytes)
}

func copyRange(t *testing.T, from, to string, offset, n int64) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(io.NewOffsetWriter(out, offset), io.NewSectionReader(in, offset, n)); err != nil {
		t.Fatal(err)
	}
}

// refused: an owner who wants to know gets an error, also where there is no area.
func (s *scratchWorld) refused(t *testing.T) {
	image := s.build("strict", shell(remembers), "--scratch", "512MiB", "--scratch-damaged", "refuse")
	id := s.create(t, image)
	s.imageBytes = s.length(t, id)
	_, tags := s.sector(0) // and what follows: BTRFS's superblock
	first := s.start(id)
	if second := s.start(id); !found(second, wrote(t, first)) {
		t.Fatalf("untouched: %s", second)
	}
	good := s.saved(t, id, "strict.img")
	for name, spoil := range map[string]func(disk string){
		"header":     func(disk string) { flip(t, disk, s.imageBytes+20) },
		"superblock": func(disk string) { flip(t, disk, s.imageBytes+s.geometry.DataOffsetBytes+16) },
		"data":       func(disk string) { zero(t, disk, tags, 1<<20) },
	} {
		if name == "superblock" && !soaking() {
			continue
		}
		s.disk(t, id, func(disk string) {
			copySparse(t, good, disk)
			spoil(disk)
		})
		if r := s.start(id); strings.Contains(r.stdout, "wrote") || !strings.Contains(r.stderr, "scratch") {
			t.Errorf("%s: %s", name, r)
		}
	}
	if r := s.podman(image, "--read-only"); strings.Contains(r.stdout, "wrote") || !strings.Contains(r.stderr, "no scratch area") {
		t.Errorf("--read-only: %s", r)
	}
}

func (s *scratchWorld) inMemory(t *testing.T) {
	image := s.build("forgets", shell(remembers+"; df -k / | tail -n1"), "--scratch", "0")
	id := s.create(t, image)
	before := s.saved(t, id, "forgets.img")
	for range 2 {
		if r := s.start(id); !strings.Contains(r.stdout, "nothing found") || !strings.Contains(r.stdout, "END") {
			t.Errorf("%s", r)
		}
	}
	s.disk(t, id, func(path string) {
		a, err1 := os.ReadFile(before)
		b, err2 := os.ReadFile(path)
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("the disk changed (%v)", err)
		}
	})
}

// readOnly is --read-only, of the build and of the run: Podman's file systems in
// memory, VOLUMEs that can be written, and nothing else.
func (s *scratchWorld) readOnly(t *testing.T) {
	c := shell(`for d in / /etc /tmp /run /var/tmp /data /full /dev/shm; do echo x 2>/dev/null >$d/x && echo $d yes || echo $d no; done; cat /full/had`)
	c["Volumes"] = map[string]struct{}{"/data": {}, "/full": {}}
	src := filepath.Join(s.dir, "src/ro")
	writeOCI(t, src, c, append(busyboxLayer(t), file("full/had", 0o644, []byte("content\n")), file("var/tmp/had", 0o644, nil)))
	want := "/ no\n/etc no\n/tmp yes\n/run yes\n/var/tmp yes\n/data yes\n/full yes\n/dev/shm yes\ncontent\n"
	for name, r := range map[string]result{
		"build": s.podman(s.buildFrom("ro-built", "oci:"+src, "--read-only")),
		"run":   s.podman(s.buildFrom("ro-run", "oci:"+src), "--read-only"),
	} {
		if r.stdout != want {
			t.Errorf("%s: %s\nexpected %s", name, r, want)
		}
	}
}

// killed: a guest that dies in the midst of writing finds what it had synced.
func (s *scratchWorld) killed(t *testing.T) {
	image := s.build("killed", shell(`n=0; [ ! -e /n ] || n=$(cat /n); echo "found $n"
while :; do n=$((n+1)); echo $n >/n.new; head -c 300000 /dev/urandom >/junk$((n%7)); mv /n.new /n; sync; echo "synced $n"; done`), "--scratch", "512MiB")
	id := s.create(t, image)
	last, rounds := "0", 2
	if soaking() {
		rounds = 10
	}
	for round := range rounds {
		s.must("podman", "start", id)
		since := s.awaitRound(t, id, round)
		if !strings.Contains(since, "found "+last+"\n") && round > 0 {
			// It may have synced more than it could say.
			m := regexp.MustCompile(`found (\d+)\n`).FindStringSubmatch(since)
			if m == nil || len(m[1]) < len(last) || len(m[1]) == len(last) && m[1] < last {
				t.Fatalf("round %d: expected at least %s in %s", round, last, since)
			}
		}
		s.must("podman", "kill", "-s", "KILL", id)
		s.must("podman", "wait", id)
		all := regexp.MustCompile(`synced (\d+)\n`).FindAllStringSubmatch(s.run("podman", "logs", id).stdout, -1)
		last = all[len(all)-1][1]
	}
}

// awaitRound waits until the round's guest has synced five times, and returns
// what it said.
func (s *scratchWorld) awaitRound(t *testing.T, id string, round int) string {
	t.Helper()
	var since string
	if !eventually(func() bool {
		parts := strings.Split(s.run("podman", "logs", id).stdout, "found ")
		if len(parts) < round+2 {
			return false
		}
		since = "found " + parts[round+1]
		return strings.Count(since, "synced") >= 5
	}) {
		t.Fatalf("round %d: the guest does not write: %s", round, s.run("podman", "logs", id))
	}
	time.Sleep(time.Duration(37*round) * time.Millisecond) // not always at the same point
	return since
}

func blocks(info os.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }
