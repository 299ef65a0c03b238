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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/workload/btrfs"
	"github.com/ccrun/ccrun/workload/ext4"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// startScript says when, by the guest's clock, the workload had its first say,
// and for how many hundredths of a second nothing had been to do until then.
const startScript = "read up rest </proc/uptime; read cpu user nice system idle wait rest </proc/stat; echo $up $idle $wait"

// startTimeout ends a machine that hangs. A start takes some 20 s of a
// processor when instructions are counted.
const startTimeout = 10 * time.Minute

// countInstructions makes QEMU's clock one nanosecond for an instruction, so
// that what the guest calls time is work, whatever else this machine does; but
// while the guest waits, for a disk or a server, time goes on as it does here.
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
// the same kernel and firmware, a plain disk with the same kind of file system,
// the same program. Times are the host's from the start of the process to the
// workload's first byte; "guest" is the guest's own clock, "work" the
// instructions until then, waits left out. All of a round follow each other; ratios are medians
// over rounds.
//
// BENCH_ROUNDS rounds (3), BENCH_MIB of the large image (1500), BENCH_WORK=1 for
// work alone, BENCH_FLAGS more flags for ccrun build, but not --fs.
func BenchmarkStart(b *testing.B) {
	s := newStartBench(b)
	rounds, _ := strconv.Atoi(cmp.Or(os.Getenv("BENCH_ROUNDS"), "3"))
	for range rounds {
		for _, m := range s.machines {
			log, err := m.measure(s.times, m.name)
			if err != nil {
				b.Fatalf("%s: %v", m.name, err)
			}
			if steps := stepTime.FindAllString(log, -1); len(steps) > 0 { // a firmware made with --debug
				b.Logf("%s:\n%s", m.name, strings.Join(steps, "\n"))
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
	qemu, err := exec.LookPath("qemu-system-x86_64")
	need(b, err)
	count := filepath.Join(s.dir, "count")
	write(b, count, fmt.Appendf(nil, countInstructions, qemu))
	if err := os.Chmod(count, 0o755); err != nil {
		b.Fatal(err)
	}
	bare := s.bare(20)
	images := map[string]string{}
	for _, fs := range benchedFilesystems {
		images[fs] = s.image(fs, fs, 20)
		ours := s.copyRootOf(images[fs])
		s.machines = append(s.machines, []startedMachine{
			{fs + " bare, counted", func() *exec.Cmd { return exec.Command(count, bare(fs, true)...) }},
			{fs + " lean, counted", func() *exec.Cmd { return exec.Command(count, bare(fs, false)...) }},
			{fs + " power-on, counted", func() *exec.Cmd { return s.vmm(ours, count) }},
		}...)
		if os.Getenv("BENCH_WORK") == "" {
			s.machines = append(s.machines, []startedMachine{
				{fs + " bare", func() *exec.Cmd { return exec.Command(qemu, bare(fs, true)...) }},
				{fs + " power-on", func() *exec.Cmd { return s.vmm(ours, qemu) }},
			}...)
		}
	}
	if os.Getenv("BENCH_WORK") == "" {
		mib, _ := strconv.Atoi(cmp.Or(os.Getenv("BENCH_MIB"), "1500"))
		large := s.image("large", "btrfs", mib)
		s.machines = append(s.machines, []startedMachine{
			{"podman run", func() *exec.Cmd { return s.podmanRun(images["btrfs"]) }},
			{"podman run, large", func() *exec.Cmd { return s.podmanRun(large) }},
		}...)
	}
	return s
}

// benchedFilesystems are the default and the one that costs a kernel least.
var benchedFilesystems = [...]string{"btrfs", "ext4"}

// filled is busybox and a file that makes the image as large as asked.
func filled(t testing.TB, mib int) []entry {
	filler := make([]byte, mib<<20-3<<20)
	return append(busyboxLayer(t), dir("proc", 0o755), file("filler", 0o644, filler))
}

func (s *startBench) image(name, fs string, mib int) string {
	src := filepath.Join(s.dir, "src", name)
	writeOCI(s.t, src, shell(startScript), filled(s.t, mib))
	image := "localhost/" + name
	args := []string{"build", "-q", "--tee", "sample", "--firmware", s.firmware, "--attest-url", s.url,
		"--attest-ca", filepath.Join(s.dir, "server/ca.pem"), "--workload-id", name, "--fs", fs}
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
	to := s.mkdir("root/" + filepath.Base(image))
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
func (s *startBench) bare(mib int) func(fs string, all bool) []string {
	fw, err := firmware.Load(s.firmware)
	if err != nil {
		s.t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(s.dir, name) }
	write(s.t, at("kernel"), fw.Kernel)
	// What a file system's module links, which dm-crypt's modules may, too.
	needed := map[string][]string{"btrfs": {"xor", "raid6", "libcrc32c", "crc32c", "zstd", "lzo"}}
	for _, fs := range benchedFilesystems {
		write(s.t, at(fs+".disk"), plainDisk(s.t, fs, filled(s.t, mib)))
		write(s.t, at(fs+".initrd.true"), s.bareInitrd(fw, fs, nil))
		write(s.t, at(fs+".initrd.false"), s.bareInitrd(fw, fs, append([]string{"virtio", "failover", "net_failover"}, needed[fs]...)))
	}
	return func(fs string, all bool) []string {
		return []string{"-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot",
			"-M", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", simProcessor, "-smp", "1", "-m", "512",
			"-kernel", at("kernel"), "-initrd", at(fmt.Sprintf("%s.initrd.%v", fs, all)), "-append", fw.Cmdline,
			"-serial", "file:/dev/stderr", "-device", "virtio-serial-pci", "-chardev", "file,id=out,path=/dev/stdout", "-device", "virtserialport,chardev=out,name=" + krun.StdoutPort,
			"-drive", "if=none,id=disk,format=raw,file=" + at(fs+".disk"), "-device", "virtio-blk-pci,drive=disk",
			"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="}
	}
}

// plainDisk is a file system as a build lays it out, not encrypted.
func plainDisk(t testing.TB, fs string, layer []entry) []byte {
	t.Helper()
	tree := rootfstest.Tree(t, rootfstest.Layer(layerTar(t, layer)))
	var disk rootfstest.Layout
	var err error
	if at := time.Unix(1, 0); fs == "btrfs" {
		disk, err = btrfs.Plan(tree, btrfs.Options{UUID: [16]byte{1}, Time: at})
	} else {
		disk, err = ext4.Plan(tree, ext4.Options{UUID: [16]byte{1}, FreeBytes: 4 << 20, Journal: true, Time: at})
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := disk.WriteTo(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// bareInitrd has bareinit for an agent. Of the firmware's modules it loads
// those whose name starts with one of only; all, if only is nil.
func (s *startBench) bareInitrd(fw *firmware.Bundle, fs string, only []string) []byte {
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
	write(s.t, filepath.Join(files, "etc/filesystem"), []byte(fs))
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

// stepTime is a step of the agent's boot table, and when it had ended.
var stepTime = regexp.MustCompile(`\[ *[0-9.]+ s\] .*`)

// measure starts the machine and waits for its first byte, and then for its end.
func (m startedMachine) measure(times map[string][]float64, name string) (said string, err error) {
	cmd := m.command()
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer time.AfterFunc(startTimeout, func() { _ = cmd.Process.Kill() }).Stop()
	r := bufio.NewReader(out)
	_, err = r.Peek(1)
	took := time.Since(start).Seconds()
	line, _ := r.ReadString('\n')
	_, _ = io.Copy(io.Discard, r)
	var guest, idle, disk float64
	_, parse := fmt.Sscan(line, &guest, &idle, &disk)
	if end := cmd.Wait(); err != nil || parse != nil {
		return "", fmt.Errorf("no first byte, but %q (%v, %v): %s", line, err, end, log.String())
	}
	times[name] = append(times[name], took)
	times[name+", guest"] = append(times[name+", guest"], guest)
	times[name+", busy"] = append(times[name+", busy"], guest-(idle+disk)/100)
	return log.String(), nil
}

// report prints each ratio. Go's own columns mean nothing here.
func (s *startBench) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	ratio := func(what, of, to string) {
		if len(s.times[of]) > 0 {
			b.ReportMetric(s.ratio(of, to), what)
		}
	}
	for _, fs := range benchedFilesystems {
		ratio(fs+"-work/bare", fs+" power-on, counted, busy", fs+" bare, counted, busy")
		ratio(fs+"-work/lean", fs+" power-on, counted, busy", fs+" lean, counted, busy")
		ratio(fs+"-work/bare-ext4", fs+" power-on, counted, busy", "ext4 bare, counted, busy")
		ratio(fs+"-guest/bare", fs+" power-on, guest", fs+" bare, guest")
		ratio(fs+"-power-on/bare", fs+" power-on", fs+" bare")
	}
	ratio("podman-run/bare", "podman run", "btrfs bare")
	ratio("large/small", "podman run, large", "podman run")
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
