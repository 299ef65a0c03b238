package tests

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestHostileMachine starts a workload in machines that a host has made worse than
// its image expects: with more devices, without RDRAND, with a disk that fails. It
// runs as it should, or the boot ends with a status and without a panic.
func TestHostileMachine(t *testing.T) {
	s := newScratchWorld(t)
	if s == nil {
		return
	}
	t.Run("a dozen devices", s.moreDevices)
	t.Run("no RDRAND", s.noRandom)
	t.Run("disk errors", s.diskErrors)
	t.Run("disk of another length", s.resized)
	t.Run("little memory", s.littleMemory)
}

// littleMemory: a machine with little more than a build takes (more than 128 MiB)
// runs, with an agent that leaves room, or ends in whatever step.
func (s *scratchWorld) littleMemory(t *testing.T) {
	s.settings(map[string]any{"Append": "ccrun.debug ccrun.net=10.0.2.15/24," + rigGateway + ","})
	defer s.settings(nil)
	r := s.podman(s.build("small", shell("echo it ran"), "--scratch", "128MiB", "--memory", "192"))
	if ended := strings.HasSuffix(strings.TrimSpace(r.stderr), "ccrun: exit status 0"); (r.stdout == "it ran\n") != ended || strings.Contains(r.stderr, "goroutine ") {
		t.Error(r)
	}
	if r.stdout != "" {
		wantSmallAgent(t, r)
	}
}

// moreDevices has two disks before its own, one of them another workload's image of the same length, a second network
// device, ports that never answer, and what else fits the machine, which has room for eight virtio devices: twelve more.
func (s *scratchWorld) moreDevices(t *testing.T) {
	id := s.create(t, s.build("crowded", shell(`echo at home; ls /sys/block | grep -c ^vd; ls /sys/bus/virtio/devices | grep -c .`), "--scratch", "128MiB"))
	other := s.create(t, s.build("neighbour", shell("echo neighbour"), "--scratch", "128MiB"))
	if ours, theirs := s.length(t, id), s.length(t, other); ours != theirs {
		t.Fatalf("images of %d and %d bytes: the other is told from ours by its length already", ours, theirs)
	}
	// The rig shows the VMM nothing of the host but the rig itself.
	disk := s.rig + "/log/neighbour.img"
	s.disk(t, other, func(path string) { copySparse(t, path, disk) })
	var before []string
	for i, backend := range []string{"driver=null-co,size=1G,read-zeroes=on", "driver=raw,read-only=on,file.filename=/.rig/log/neighbour.img"} {
		id := fmt.Sprintf("before%d", i)
		before = append(before, "-drive", "if=none,id="+id+","+backend, "-device", "virtio-blk-device,drive="+id)
	}
	s.settings(map[string]any{"Before": before, "More": []string{
		"-netdev", "user,id=more,restrict=on,net=10.9.9.0/24", "-device", "virtio-net-device,netdev=more",
		"-object", "rng-builtin,id=rng", "-device", "virtio-rng-device,rng=rng",
		"-chardev", "null,id=deaf0", "-device", "virtserialport,chardev=deaf0,name=io.ccrun.report.2",
		"-chardev", "null,id=deaf1", "-device", "virtserialport,chardev=deaf1,name=com.redhat.spice.0",
		"-chardev", "null,id=deaf2", "-device", "virtconsole,chardev=deaf2",
		"-chardev", "null,id=deaf3", "-device", "isa-serial,chardev=deaf3",
		"-chardev", "null,id=deaf4", "-device", "isa-parallel,chardev=deaf4",
		"-chardev", "null,id=deaf5", "-device", "isa-debugcon,chardev=deaf5",
		"-device", "pvpanic", "-device", "isa-debug-exit", "-device", "i8042",
	}})
	defer s.settings(nil)
	r := s.start(id)
	lines := strings.Fields(r.stdout)
	if !strings.HasSuffix(strings.TrimSpace(r.stderr), "ccrun: exit status 0") || len(lines) < 2 || !strings.HasPrefix(r.stdout, "at home\n") {
		t.Fatal(r)
	}
	t.Logf("the guest had these numbers of disks and virtio devices: %s", lines[len(lines)-2:])
}

// resized: a host makes the disk longer and shorter under a guest that writes and
// reads. It reads what it wrote, or it reads errors; and what is gone is gone.
func (s *scratchWorld) resized(t *testing.T) {
	image := s.build("resized", shell(`set -o pipefail; [ -e /f0 ] && echo kept || echo new
i=0; while [ $i -lt 20 ]; do head -c 1000000 /dev/urandom >/f$i; md5sum </f$i >/s$i; i=$((i+1)); done; sync
n=0; lost=0; while [ $lost -lt 3 ]; do n=$((n+1)); i=$((n%20))
if m=$(dd if=/f$i bs=1M iflag=direct 2>/dev/null | md5sum); then [ "$m" = "$(cat /s$i)" ] && echo right || echo WRONG; else lost=$((lost+1)); echo lost; fi; sleep 1; done; exit 7`), "--scratch", "128MiB")
	id := s.create(t, image)
	s.imageBytes = s.length(t, id)
	s.settings(map[string]any{"More": []string{"-qmp", "unix:/.rig/log/qmp.sock,server=on,wait=off"}})
	defer s.settings(nil)
	s.must("podman", "start", id)
	says := func(what string, times int) string {
		t.Helper()
		var r result
		if !eventually(func() bool { r = s.run("podman", "logs", id); return strings.Count(r.stdout, what) >= times }) {
			t.Fatalf("it does not say %q %d times: %s", what, times, r)
		}
		return r.stdout
	}
	says("right\n", 2)
	long := s.length(t, id)
	s.resize(t, long+64<<20)
	before := strings.Count(says("right\n", 2), "right\n")
	if out := says("right\n", before+3); strings.Contains(out, "lost") {
		t.Errorf("of a longer disk: %s", out)
	}
	s.resize(t, s.imageBytes)
	status := strings.TrimSpace(s.must("podman", "wait", id))
	r := s.run("podman", "logs", id)
	if status != "0" || strings.Contains(r.stdout, "WRONG") || !strings.Contains(r.stdout, "lost\nlost\nlost\n") ||
		strings.Contains(r.stderr, "panic") || !strings.HasSuffix(strings.TrimSpace(r.stderr), "ccrun: exit status 7") {
		t.Errorf("of a shorter disk, status %s: %s", status, r)
	}
	s.settings(nil)
	s.must("podman", "start", id)
	if out := says("new\n", 2); strings.Contains(out, "kept") {
		t.Errorf("after what was written was cut off: %s", out)
	}
}

// resize has QEMU give the disk another length.
func (s *scratchWorld) resize(t *testing.T, n int64) {
	t.Helper()
	c, err := net.Dial("unix", s.rig+"/log/qmp.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := json.NewDecoder(c)
	for _, command := range []string{"", `{"execute":"qmp_capabilities"}`, fmt.Sprintf(`{"execute":"block_resize","arguments":{"device":"disk0","size":%d}}`, n)} {
		if _, err := c.Write([]byte(command)); err != nil {
			t.Fatal(err)
		}
		for a := map[string]any{}; a["QMP"] == nil && a["return"] == nil; { // events come between
			clear(a)
			if err := answers.Decode(&a); err != nil || a["error"] != nil {
				t.Fatalf("QEMU, asked to resize the disk to %d: %v, %v", n, a, err)
			}
		}
	}
}

// noRandom: a host can hide RDRAND, and then nothing is drawn in this guest.
func (s *scratchWorld) noRandom(t *testing.T) {
	image := s.build("unseeded", shell("echo must not run"), "--scratch", "128MiB")
	s.settings(map[string]any{"CPU": ",-rdrand"})
	defer s.settings(nil)
	r := s.podman(image)
	if r.stdout != "" || !strings.Contains(r.stderr, "processor 1 has no rdrand") || !strings.HasSuffix(strings.TrimSpace(r.stderr), "ccrun: exit status 125") {
		t.Error(r)
	}
}

// diskErrors has reading or writing one place of the disk fail: at each there is a
// step of the boot that notices.
func (s *scratchWorld) diskErrors(t *testing.T) {
	image := s.build("unreadable", shell("echo it ran; cat /bin/busybox >/dev/null && echo all of it"), "--scratch", "512MiB")
	id := s.create(t, image)
	s.imageBytes = s.length(t, id)
	if r := s.start(id); !strings.Contains(r.stdout, "all of it") {
		t.Fatalf("without errors: %s", r)
	}
	const first = 1 << 20 // of the segment, and of the scratch area's
	read := func(at int64) []diskFault { return []diskFault{{"read", at}} }
	for _, c := range []struct {
		name   string
		faults []diskFault
		step   string // that ends with it; empty: the workload may start
	}{
		{"a header that has a second copy, and writing to scratch's header and journal",
			[]diskFault{{"read", 0}, {"write", s.imageBytes}, {"write", s.imageBytes + first + 8192}}, ""},
		{"footer", read(s.imageBytes - 1), "finding the disk"},
		{"keyslot", read(40 << 10), "finding the disk"},
		{"dm-integrity's superblock", read(first), "finding the disk"},
		{"file system", read(s.imageBytes - 1<<20), ""},
		{"scratch header", read(s.imageBytes), "unlocking the disk"},
		{"scratch superblock", read(s.imageBytes + first), ""},
	} {
		// What ends as reading the keyslot does: for a soak.
		if (c.name == "footer" || c.name == "dm-integrity's superblock") && !soaking() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			s.settings(map[string]any{"Faults": faultOptions(c.faults)})
			defer s.settings(nil)
			r := s.start(id)
			status := strings.TrimSpace(r.stderr)
			if strings.Contains(r.stderr, "panic") || !strings.Contains(status[strings.LastIndex(status, "\n")+1:], "ccrun: exit status ") {
				t.Errorf("no end of its own: %s", r)
			}
			if c.step != "" && (r.stdout != "" || !strings.Contains(r.stderr, c.step+": ") || !strings.HasSuffix(status, "ccrun: exit status 125")) {
				t.Errorf("%s\nexpected an end while %s", r, c.step)
			}
			t.Logf("%.200s%.400s", r.stdout, r.stderr)
		})
	}
}

// diskFault is an operation that QEMU lets fail, and where.
type diskFault struct {
	operation string
	at        int64
}

func faultOptions(faults []diskFault) (options string) {
	for i, f := range faults {
		options += fmt.Sprintf(",file.inject-error.%[1]d.event=none,file.inject-error.%[1]d.iotype=%[2]s,file.inject-error.%[1]d.errno=5,file.inject-error.%[1]d.sector=%[3]d,file.inject-error.%[1]d.once=off",
			i, f.operation, f.at/512)
	}
	return options
}
