package main

import (
	"encoding/json"
	"os"
	"syscall"
	"time"

	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/krun/sim"
)

// runtimeMain is the OCI runtime. It ends by becoming crun.
func runtimeMain(args []string) int {
	argv, err := runtimeCommand(args[1:])
	if err == nil {
		err = syscall.Exec(argv[0], argv, os.Environ())
	}
	printError(os.Stderr, sim.RuntimeName, err)
	logForPodman(args[1:], err)
	return 1
}

func runtimeCommand(args []string) ([]string, error) {
	crun, err := sim.FindCrun()
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
	r := sim.Runtime{Binary: self, Root: root, Firmware: os.Getenv("CCRUN_SIM_FIRMWARE"), Crun: crun, HostRoot: "/",
		Log: newLogger(os.Stderr, sim.RuntimeName)}
	return r.Command(args)
}

// logForPodman writes err where Podman looks for the reason of a failure: the
// file of --log, in crun's JSON form.
func logForPodman(args []string, err error) {
	path := sim.JSONLog(args)
	if path == "" {
		return
	}
	msg := sim.RuntimeName + " (" + notice + "): " + err.Error()
	if hint := hintOf(err); hint != "" {
		msg += "; " + hint
	}
	line, jsonErr := json.Marshal(map[string]string{"msg": msg, "level": "error", "time": now().UTC().Format(time.RFC3339)})
	if jsonErr != nil {
		return
	}
	f, openErr := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if openErr != nil {
		return // stderr has it too
	}
	defer f.Close()
	_, _ = f.Write(append(line, '\n'))
}
