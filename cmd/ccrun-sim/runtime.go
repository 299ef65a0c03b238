package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/sim"
)

// runtimeMain is the OCI runtime. It ends by becoming crun.
func runtimeMain(args []string) int {
	if len(args) > 1 && (args[1] == "--help" || args[1] == "-?") {
		fmt.Printf("%s: %s. An OCI runtime: images made by `ccrun build --tee sample` boot in QEMU,\n"+
			"all others run as crun runs them. Its own options, before the command:\n"+
			"  --sample-root DIR  the simulated platform ($CCRUN_SIM_ROOT, default %s)\n"+
			"  --firmware DIR     what machines boot from ($CCRUN_SIM_FIRMWARE, default: firmware in there;\n"+
			"                     images of --vmm qemu: $CCRUN_SIM_QEMU_FIRMWARE, default: where ccrun looks)\n"+
			"The rest is crun's:\n\n", sim.RuntimeName, notice, sample.DefaultRoot)
	}
	if len(args) > 1 && args[1] == "--version" {
		// What `ccrun run` knows us by; crun's own lines follow.
		fmt.Printf("%s: %s\n", sim.RuntimeName, notice)
	}
	c, err := sim.Parse(args)
	var argv []string
	if err == nil {
		argv, err = runtimeCommand(c)
	}
	if err == nil {
		err = syscall.Exec(argv[0], argv, os.Environ())
	}
	err = podmanError{err}
	face.Program{Name: sim.RuntimeName, Notice: notice}.Report(os.Stderr, err)
	logForPodman(c, err)
	return 1
}

// podmanError is an error in words that Podman does not take for others:
// these, anywhere in a runtime's message, mean to it that the container's
// command does not exist (status 127) or cannot be executed (126).
type podmanError struct{ err error }

func (e podmanError) Error() string {
	return strings.NewReplacer("no such file or directory", "it does not exist",
		"permission denied", "access refused", "not found", "missing").Replace(e.err.Error())
}
func (e podmanError) Unwrap() error { return e.err }

func runtimeCommand(c crun.Command) ([]string, error) {
	path, err := sim.FindCrun()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	root := os.Getenv("CCRUN_SIM_ROOT")
	if root == "" {
		root = sample.DefaultRoot
	}
	r := sim.Runtime{Binary: self, Root: root, Firmware: os.Getenv("CCRUN_SIM_FIRMWARE"), QEMUFirmware: os.Getenv("CCRUN_SIM_QEMU_FIRMWARE"),
		Crun: path, HostRoot: "/", QEMURoot: os.Getenv("CCRUN_SIM_QEMU_ROOT"), Stdin: os.Stdin}
	return r.Command(c)
}

// logForPodman writes err where Podman looks for the reason of a failure.
func logForPodman(c crun.Command, err error) {
	msg := sim.RuntimeName + " (" + notice + "): " + err.Error()
	if next := hint.Of(err); next != "" {
		msg += "; " + next
	}
	_ = c.WriteLog(now(), msg) // stderr has it too
}
