package tests

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ccrun/ccrun/krun"
)

// fillsUp writes files, each of them durably, until the disk takes no more, and says
// what they are; once there are some it says that alone.
const fillsUp = `cd /data
if [ -e f0 ]; then for f in f*; do busybox sha256sum $f; done; exit 0; fi
n=0; while [ $n -lt 100 ] && dd if=/dev/urandom of=f$n bs=1M count=2 conv=fsync 2>/dev/null; do busybox sha256sum f$n; n=$((n+1)); done
echo "stopped at $n"; (echo x >new && sync) 2>/dev/null; dd if=/dev/zero of=more bs=1M count=1 conv=fsync 2>/dev/null || echo "takes no more"`

// TestVolumeOnAFullHost: the host's disk is full, so that the guest's writes fail in
// the midst of a transaction. The workload sees it, the volume is not taken for
// closed, and with room again it has all that was there to stay.
func TestVolumeOnAFullHost(t *testing.T) {
	if !soaking() {
		t.Skip("TestVolumeOnAFullHost is for `make soak`")
	}
	w := newWorld(t)
	small := w.mkdir("volumes")
	room := func(flags uintptr, mib int) {
		t.Helper()
		if err := syscall.Mount("tmpfs", small, "tmpfs", flags, fmt.Sprintf("size=%dm", mib)); err != nil {
			t.Fatal(err)
		}
	}
	room(0, 96)
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	v := &volumeWorld{world: w, runtime: "krun-sim", network: "host", file: filepath.Join(small, "counts.vol")}
	v.image = w.buildLayers("counts", shell(fillsUp), [][]entry{busyboxLayer(t)}, countsFlags...)
	v.must("ccrun", "volume", "create", v.file)
	r := v.start()
	acknowledged, rest, _ := strings.Cut(r.stdout, "stopped at ")
	if n := strings.Count(acknowledged, "\n"); n < 3 || n > 50 || !strings.Contains(rest, "takes no more") || !strings.Contains(r.stderr, "volume data is closed without a generation of its own") {
		t.Fatalf("full: %s", r)
	}
	if st := v.status(t); st.ClosedAt != nil || st.Generation == 0 {
		t.Errorf("after it: %+v", st)
	}
	room(syscall.MS_REMOUNT, 600)
	r = v.start("--annotation", krun.VolumesAnnotation+"="+v.file)
	for line := range strings.Lines(acknowledged) {
		if !strings.Contains(r.stdout, line) {
			t.Errorf("lost: %s", line)
		}
	}
	if st := v.status(t); r.code != 0 || st.ClosedAt == nil {
		t.Errorf("with room again: %s, %+v", r, st)
	}
	t.Logf("soak: %d files", strings.Count(acknowledged, "\n"))
}
