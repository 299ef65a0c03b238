// Command vmm is what tests/rig/libkrun.c executes in krun_start_enter: PID 1
// of a container whose guest QEMU runs, with libkrun's own rules for console,
// ports, signals and exit status. It protects nothing.
//
// The rules were read in libkrun 1.19 and seen with it (src/vmm/src/builder.rs,
// src/devices/src/virtio/console/port_io.rs, src/vmm/src/lib.rs):
//   - A stream that is no terminal is a port of its own (krun-stdin,
//     krun-stdout, krun-stderr); hvc0 then goes to the log on stderr, line by
//     line, each with a prefix and cut at 512 bytes.
//   - SIGINT becomes the byte 0x03 on hvc0's input unless stdin is a terminal.
//     SIGTERM and SIGHUP do nothing, as the VMM is PID 1 without a handler.
//   - The status is 0 whatever the guest did.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/ccrun/ccrun/krun"
)

func main() {
	// Go would end on signals that have no handler; PID 1 in C would not.
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "vmm:", err)
		os.Exit(1)
	}
}

// parts is what libkrun would load into the guest's memory, and its disk.
type parts struct {
	kernel, qboot, initrd, root []byte
	load                        uint64
	disk                        *os.File
	config                      krun.TEEConfig
}

// run takes LOAD KERNEL QBOOT INITRD ROOT DISK CONFIG: an address, five open
// files and the path of krun-sev.json.
func run(args []string) error {
	if len(args) != 8 {
		return fmt.Errorf("%d arguments, expected 7: only libkrun-sev.so.1 of the rig runs this", len(args)-1)
	}
	p, err := readParts(args[1:])
	if err != nil {
		return err
	}
	settings, err := readSettings("/.rig/settings.json")
	if err != nil {
		return err
	}
	if err := recordSelf("/.rig/log/vmm.json"); err != nil {
		return err
	}
	m, err := newMachine(p, settings)
	if err != nil {
		return err
	}
	return m.run()
}

func readParts(args []string) (*parts, error) {
	p := new(parts)
	var err error
	if p.load, err = strconv.ParseUint(args[0], 0, 64); err != nil {
		return nil, fmt.Errorf("load address: %w", err)
	}
	for i, to := range []*[]byte{&p.kernel, &p.qboot, &p.initrd, &p.root} {
		if *to, err = os.ReadFile("/proc/self/fd/" + args[1+i]); err != nil {
			return nil, fmt.Errorf("reading part %d: %w", i, err)
		}
	}
	fd, err := strconv.Atoi(args[5])
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	p.disk = os.NewFile(uintptr(fd), krun.DiskFile)
	b, err := os.ReadFile(args[6])
	if err != nil {
		return nil, err
	}
	return p, json.Unmarshal(b, &p.config)
}

// settings is what a test chooses.
type settings struct {
	Append string   // more words for the kernel command line
	Chip   string   // directory of the simulated platform's chip; empty: no Evidence
	Slirp  string   // more options of QEMU's user network, such as host forwarding
	Mute   []string // ports that do not exist, such as an old libkrun's
	CPU    string   // more options of QEMU's processor
	Faults string   // more options of QEMU's blkdebug, under the image's disk
	Before []string // more of QEMU's arguments, before the image's disk
	More   []string // and behind all else
}

func readSettings(path string) (settings, error) {
	var s settings
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// recordSelf leaves what this process may do for the tests to judge.
func recordSelf(path string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	b, err := json.Marshal(map[string]string{"status": string(status), "mounts": string(mounts)})
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
