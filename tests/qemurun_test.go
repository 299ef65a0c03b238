package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// TestQEMUWorkload runs an image of `ccrun build --vmm qemu` under Podman, on the
// machine of production less the TEE's object: through OVMF's AmdSev build, with
// the table of hashes, on a QEMU that has SNP and TDX. The key server asks for the
// identity in HOST_DATA. A second machine of the image runs beside it: on the host's
// own QEMU, which is too old for OVMF's table, without OVMF.
func TestQEMUWorkload(t *testing.T) {
	w := newWorld(t)
	rig := os.Getenv("CCRUN_RIG")
	for _, name := range []string{"OVMF.amdsev.fd", "root-sid/usr/bin/qemu-system-x86_64"} {
		_, err := os.Stat(filepath.Join(rig, name))
		need(t, err)
	}
	dir := w.qemuFirmware(t, filepath.Join(rig, "OVMF.amdsev.fd"))
	// OVMF's way of handing over an initrd is on the command line.
	image := w.build("onqemu", shell(`echo "speaks on $(grep -c ^processor /proc/cpuinfo)"; grep -q initrd=initrd /proc/cmdline || exit 41
trap 'echo stopping; exit 9' TERM; echo ready; while :; do sleep 1 & wait $!; done`), "--vmm", "qemu", "--firmware", dir, "--cpus", "2")
	registered := w.must("ccrun", "workload", "show", "--format", "json", "onqemu")
	if !strings.Contains(registered, `"host_data"`) || !strings.Contains(registered, `"qemu-snp"`) {
		t.Errorf("registered without HOST_DATA: %s", registered)
	}
	hosts := func(qemuRoot string) *world {
		return w.hostsOf(t, `CCRUN_SIM_FIRMWARE=`+w.firmware+`"`, `CCRUN_SIM_QEMU_FIRMWARE=`+dir+`", "CCRUN_SIM_QEMU_ROOT=`+qemuRoot+`"`)
	}
	through := hosts(filepath.Join(rig, "root-sid"))
	through.must("podman", "run", "-d", "--name", "onqemu", "--runtime", "krun-sim", "--network", "host", image)
	through.awaitLog(t, "onqemu", "ready")
	if r := hosts("").podman(image); r.code != 41 || r.stdout != "speaks on 2\n" || !strings.Contains(r.stderr, "older than 10.1") {
		t.Errorf("without OVMF, beside the other: %s", r)
	}
	through.stop("onqemu")
	status := strings.TrimSpace(through.must("podman", "wait", "onqemu"))
	if r := through.run("podman", "logs", "onqemu"); status != "9" || !strings.HasSuffix(r.stdout, "speaks on 2\nready\nstopping\n") {
		t.Errorf("through OVMF: status %s, %s", status, r)
	}
}

// qemuFirmware is the simulator's kernel and modules with OVMF before them.
func (w *world) qemuFirmware(t *testing.T, ovmf string) string {
	t.Helper()
	from, err := firmware.Load(w.firmware)
	if err != nil {
		t.Fatal(err)
	}
	dir := w.mkdir("qemu-firmware")
	write(t, filepath.Join(dir, "vmlinuz"), from.Kernel)
	write(t, filepath.Join(dir, "modules.cpio"), from.InitrdBase)
	copyFile(t, ovmf, filepath.Join(dir, "OVMF.fd"))
	config, err := json.Marshal(firmware.Config{Version: 1, Kind: firmware.KindOVMF, Kernel: "vmlinuz", Initrd: "modules.cpio", OVMF: "OVMF.fd", CPU: "EPYC-v4", Cmdline: from.Cmdline})
	if err != nil || !strings.Contains(from.Cmdline, measure.StopsACPI) {
		t.Fatalf("command line %q (%v)", from.Cmdline, err)
	}
	write(t, filepath.Join(dir, "firmware.json"), config)
	return dir
}
