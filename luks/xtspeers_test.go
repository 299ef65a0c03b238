package luks

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// peer is a program that encrypts as many sectors as it is told.
type peer struct {
	name string
	in   io.Writer
	out  *bufio.Reader
}

func (p *peer) encrypt(b *testing.B, sectors int) (nanoseconds int64) {
	_, err := fmt.Fprintln(p.in, sectors)
	if err == nil {
		_, err = fmt.Fscanln(p.out, &nanoseconds)
	}
	if err != nil {
		b.Fatalf("%s: %v", p.name, err)
	}
	return nanoseconds
}

// startPeer runs a program until the benchmark ends.
func startPeer(b *testing.B, name, binary string) *peer {
	cmd := exec.Command(binary)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("%s: %v", name, err)
		}
	})
	return &peer{name, in, bufio.NewReader(out)}
}

// peers builds those that can be built here.
func peers(b *testing.B) (all []*peer) {
	dir := b.TempDir()
	for _, p := range []struct {
		name, in string
		build    func(out string) []string
	}{
		{"openssl", "testdata/peers", func(out string) []string { return []string{"cc", "-O2", "-o", out, "openssl.c", "-lcrypto"} }},
		{"luksy", "testdata/peers/luksy", func(out string) []string { return []string{"go", "build", "-o", out, "."} }},
	} {
		binary := filepath.Join(dir, p.name)
		args := p.build(binary)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = p.in
		cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Logf("without %s: %v: %s", p.name, err, out)
			continue
		}
		all = append(all, startPeer(b, p.name, binary))
	}
	if len(all) == 0 {
		b.Skip("no peer could be built: needs cc with libcrypto, or luksy in the module cache")
	}
	return all
}

// BenchmarkXTSPeers is AES-256-XTS of 4096-byte sectors on one core, ours and
// others' in turn, in CPU time, so that other load hits all alike.
func BenchmarkXTSPeers(b *testing.B) {
	x, err := newXTS(plaintext(64))
	if err != nil {
		b.Fatal(err)
	}
	all := peers(b)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const sectors = 2048
	var s xtsScratch
	buf := make([]byte, 4096)
	var ours int64
	theirs := make([]int64, len(all))
	b.SetBytes(sectors * 4096)
	for b.Loop() {
		start := threadTime(b)
		for i := range sectors {
			x.encrypt(buf, uint64(8*i), &s)
		}
		ours += threadTime(b) - start
		for i, p := range all {
			theirs[i] += p.encrypt(b, sectors)
		}
	}
	b.ReportMetric(float64(b.N)*sectors*4096/float64(ours), "ours-GB/s")
	for i, p := range all {
		b.ReportMetric(float64(b.N)*sectors*4096/float64(theirs[i]), p.name+"-GB/s")
		b.ReportMetric(float64(theirs[i])/float64(ours), p.name+"-x-ours")
	}
}

// threadTime is the CPU time of the calling thread, in nanoseconds.
func threadTime(b *testing.B) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return t.Nano()
}
