package tests

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/workload/ext4"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// startScript says when, by the guest's clock, the workload had its first say.
const startScript = "read up rest </proc/uptime; echo $up"

// startTimeout ends a machine that hangs. A start takes some 20 s of a busy
// processor when instructions are counted.
const startTimeout = 3 * time.Minute

// countInstructions makes QEMU's clock one nanosecond for an instruction, so
// that what the guest calls time is work, whatever else this machine does.
const countInstructions = `#!/bin/sh
# one thread: instructions cannot be counted on more
for arg do
	shift
	case $arg in tcg,*) arg=tcg,thread=single,tb-size=256 ;; esac
	set -- "$@" "$arg"
done
exec %s "$@" -icount shift=0,sleep=on
`

// BenchmarkStart compares the start of a workload with that of a bare machine:
// the same kernel and firmware, a plain disk, the same program. Times are the
// host's from the start of the process to the workload's first byte; "guest" is
// the guest's own clock, "work" the same counted in instructions. All of a
// round follow each other; ratios are medians over rounds.
//
// BENCH_ROUNDS rounds (3), BENCH_MIB of the large image (1500), BENCH_WORK=1 for
// work alone, BENCH_FLAGS more flags for ccrun build.
func BenchmarkStart(b *testing.B) {
	s := newStartBench(b)
	rounds, _ := strconv.Atoi(cmp.Or(os.Getenv("BENCH_ROUNDS"), "3"))
	for range rounds {
		for _, m := range s.machines {
			if err := m.measure(s.times, m.name); err != nil {
				b.Fatalf("%s: %v", m.name, err)
			}
		}
	}
	s.report(b)
}

// startBench is what is started and how long each took, round by round.
type startBench struct {
	*world
	machines []startedMachine
	times    map[string][]float64 // seconds
}

type startedMachine struct {
	name    string
	command func() *exec.Cmd
}

func newStartBench(b *testing.B) *startBench {
	s := &startBench{world: newWorld(b), times: map[string][]float64{}}
	small := s.image("small", 20)
	qemu, err := exec.LookPath("qemu-system-x86_64")
	need(b, err)
	count := filepath.Join(s.dir, "count")
	write(b, count, fmt.Appendf(nil, countInstructions, qemu))
	if err := os.Chmod(count, 0o755); err != nil {
		b.Fatal(err)
	}
	bare := s.bare(20)
	ours := s.copyRootOf(small)
	s.machines = []startedMachine{
		{"bare, counted", func() *exec.Cmd { return exec.Command(count, bare(true)...) }},
		{"lean, counted", func() *exec.Cmd { return exec.Command(count, bare(false)...) }},
		{"power-on, counted", func() *exec.Cmd { return s.vmm(ours, count) }},
	}
	if os.Getenv("BENCH_WORK") != "" {
		return s
	}
	mib, _ := strconv.Atoi(cmp.Or(os.Getenv("BENCH_MIB"), "1500"))
	large := s.image("large", mib)
	s.machines = append(s.machines, []startedMachine{
		{"bare", func() *exec.Cmd { return exec.Command(qemu, bare(true)...) }},
		{"lean", func() *exec.Cmd { return exec.Command(qemu, bare(false)...) }},
		{"power-on", func() *exec.Cmd { return s.vmm(ours, qemu) }},
		{"podman run", func() *exec.Cmd { return s.podmanRun(small) }},
		{"podman run, large", func() *exec.Cmd { return s.podmanRun(large) }},
	}...)
	return s
}

// filled is busybox and a file that makes the image as large as asked.
func (s *startBench) filled(mib int) []entry {
	filler := make([]byte, mib<<20-3<<20)
	return append(busyboxLayer(s.t), dir("proc", 0o755), file("filler", 0o644, filler))
}

func (s *startBench) image(name string, mib int) string {
	src := filepath.Join(s.dir, "src", name)
	writeOCI(s.t, src, shell(startScript), s.filled(mib))
	image := "localhost/" + name
	args := []string{"build", "-q", "--tee", "sample", "--firmware", s.firmware, "--attest-url", s.url,
		"--attest-ca", filepath.Join(s.dir, "server/ca.pem"), "--workload-id", name}
	args = append(args, strings.Fields(os.Getenv("BENCH_FLAGS"))...)
	s.must("ccrun", append(args, "oci:"+src, "containers-storage:"+image)...)
	_ = os.RemoveAll(src)
	return image
}

func (s *startBench) podmanRun(image string) *exec.Cmd {
	return s.command("podman", "run", "--rm", "--runtime", "krun-sim", "--network", "host", image)
}

func (s *startBench) copyRootOf(image string) string {
	id := strings.TrimSpace(s.must("podman", "create", image))
	root := strings.TrimSpace(s.must("podman", "mount", id))
	to := s.mkdir("root")
	for _, name := range []string{krun.DiskFile, krun.InitrdFile, krun.TEEConfigFile, krun.HintsFile} {
		copyFile(s.t, filepath.Join(root, name), filepath.Join(to, name))
	}
	s.must("podman", "rm", "-f", id)
	b, err := os.ReadFile(filepath.Join(to, krun.HintsFile))
	if err != nil {
		s.t.Fatal(err)
	}
	hints, err := krun.DecodeHints(b)
	if err != nil {
		s.t.Fatal(err)
	}
	if hints.DiskBytes > 0 { // room for scratch, which the runtime makes
		truncate(s.t, filepath.Join(to, krun.DiskFile), hints.DiskBytes)
	}
	return to
}

// vmm is what krun-sim has Podman run in the container.
func (s *startBench) vmm(image, qemu string) *exec.Cmd {
	config := filepath.Join(s.dir, "vmm.json")
	write(s.t, config, marshal(s.t, map[string]any{"version": 1, "image_dir": image, "firmware_dir": s.firmware, "qemu": qemu,
		"chip_dir": filepath.Join(os.Getenv("CCRUN_SIM_ROOT"), "chip"), "temp_dir": s.mkdir("tmp"), "read_only": false}))
	return s.command("ccrun-sim", "vmm", "--config", config)
}

// bare lays out the machine to compare with: QEMU's arguments, with all the
// firmware's modules or with those alone that it needs.
func (s *startBench) bare(mib int) func(all bool) []string {
	fw, err := firmware.Load(s.firmware)
	if err != nil {
		s.t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(s.dir, name) }
	write(s.t, at("kernel"), fw.Kernel)
	write(s.t, at("plain.disk"), s.plainDisk(mib))
	write(s.t, at("initrd.true"), s.bareInitrd(fw, nil))
	write(s.t, at("initrd.false"), s.bareInitrd(fw, []string{"virtio", "failover", "net_failover"}))
	return func(all bool) []string {
		return []string{"-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot",
			"-M", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", simProcessor, "-smp", "1", "-m", "512",
			"-kernel", at("kernel"), "-initrd", at(fmt.Sprintf("initrd.%v", all)), "-append", fw.Cmdline,
			"-serial", "file:/dev/stderr", "-device", "virtio-serial-pci", "-chardev", "file,id=out,path=/dev/stdout", "-device", "virtserialport,chardev=out,name=" + krun.StdoutPort,
			"-drive", "if=none,id=disk,format=raw,file=" + at("plain.disk"), "-device", "virtio-blk-pci,drive=disk",
			"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="}
	}
}

func (s *startBench) plainDisk(mib int) []byte {
	tree := rootfstest.Tree(s.t, rootfstest.Layer(layerTar(s.t, s.filled(mib))))
	disk, err := ext4.Plan(tree, ext4.Options{UUID: [16]byte{1}, FreeBytes: 4 << 20, Journal: true, Time: time.Unix(1, 0)})
	if err != nil {
		s.t.Fatal(err)
	}
	var out bytes.Buffer
	if err := disk.WriteTo(s.t.Context(), &out); err != nil {
		s.t.Fatal(err)
	}
	return out.Bytes()
}

// bareInitrd has bareinit for an agent. Of the firmware's modules it loads
// those whose name starts with one of only; all, if only is nil.
func (s *startBench) bareInitrd(fw *firmware.Bundle, only []string) []byte {
	program := filepath.Join(s.dir, "bareinit")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program, "./bareinit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		s.t.Fatalf("building bareinit: %v: %s", err, out)
	}
	elf, err := os.ReadFile(program)
	if err != nil {
		s.t.Fatal(err)
	}
	agent, err := firmware.AgentSegment(elf)
	if err != nil {
		s.t.Fatal(err)
	}
	files := s.mkdir("files")
	write(s.t, filepath.Join(files, "etc/script"), []byte(startScript))
	if only != nil {
		write(s.t, filepath.Join(files, firmware.ModulesFile), []byte(modulesOf(fw.InitrdBase, only)))
	}
	segment := s.pack(files)
	_ = os.RemoveAll(files)
	segments, err := firmware.ComposeInitrd(agent, segment)
	if err != nil {
		s.t.Fatal(err)
	}
	initrd, err := fw.BootInitrd(segments)
	if err != nil {
		s.t.Fatal(err)
	}
	return initrd
}

func (s *startBench) pack(dir string) []byte {
	cmd := exec.Command("sh", "-c", "find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("packing the initrd: %v", err)
	}
	return out
}

// modulesOf is the list in a module segment, less what starts with none of only.
func modulesOf(segment []byte, only []string) string {
	_, list, _ := bytes.Cut(segment, []byte(strings.TrimPrefix(firmware.ModulesFile, "/")+"\x00"))
	var kept strings.Builder
	for line := range strings.Lines(string(bytes.TrimLeft(list, "\x00"))) {
		name := filepath.Base(line)
		if strings.HasPrefix(line, "/lib/modules/") && slices.ContainsFunc(only, func(p string) bool { return strings.HasPrefix(name, p) }) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// measure starts the machine and waits for its first byte, and then for its end.
func (m startedMachine) measure(times map[string][]float64, name string) error {
	cmd := m.command()
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer time.AfterFunc(startTimeout, func() { _ = cmd.Process.Kill() }).Stop()
	r := bufio.NewReader(out)
	_, err = r.Peek(1)
	took := time.Since(start).Seconds()
	line, _ := r.ReadString('\n')
	_, _ = io.Copy(io.Discard, r)
	guest, parse := strconv.ParseFloat(strings.TrimSpace(line), 64)
	if end := cmd.Wait(); err != nil || parse != nil {
		return fmt.Errorf("no first byte, but %q (%v, %v): %s", line, err, end, log.String())
	}
	times[name] = append(times[name], took)
	times[name+", guest"] = append(times[name+", guest"], guest)
	return nil
}

// report prints each ratio. Go's own columns mean nothing here.
func (s *startBench) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	for _, r := range []struct{ what, of, to string }{
		{"work/bare", "power-on, counted, guest", "bare, counted, guest"},
		{"guest/bare", "power-on, guest", "bare, guest"},
		{"power-on/bare", "power-on", "bare"},
		{"podman-run/bare", "podman run", "bare"},
		{"large/small", "podman run, large", "podman run"},
		{"work/lean", "power-on, counted, guest", "lean, counted, guest"},
		{"guest/lean", "power-on, guest", "lean, guest"},
	} {
		if len(s.times[r.of]) > 0 {
			b.ReportMetric(s.ratio(r.of, r.to), r.what)
		}
	}
	names, _ := json.Marshal(s.times)
	b.Logf("seconds: %s", names)
}

// ratio is the median over rounds.
func (s *startBench) ratio(of, to string) float64 {
	var all []float64
	for i, t := range s.times[of] {
		all = append(all, t/s.times[to][i])
	}
	slices.Sort(all)
	return (all[len(all)/2] + all[(len(all)-1)/2]) / 2
}
