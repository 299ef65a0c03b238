// Command shim stands between ccrun's runtime krun and crun in the rig: it
// mounts into the container what tests/rig/vmm needs to run QEMU there, lets
// the loader find the rig's libkrun-sev.so.1, and executes the real crun with
// the arguments unchanged. Its directory is the rig.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func main() {
	fmt.Fprintln(os.Stderr, "shim:", run())
	os.Exit(1)
}

// run becomes crun; it returns only if it cannot.
func run() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	rig := filepath.Dir(self)
	if bundle := bundleOf(os.Args[1:]); bundle != "" {
		if err := prepare(rig, bundle); err != nil {
			return err
		}
	}
	if err := addLibraryPath(rig); err != nil {
		return err
	}
	crun := filepath.Join(rig, "crun")
	return fmt.Errorf("executing %s: %w", crun, syscall.Exec(crun, os.Args, os.Environ()))
}

// bundleOf is the bundle of a create, as Podman and conmon give it.
func bundleOf(args []string) string {
	i := slices.Index(args, "--bundle")
	if !slices.Contains(args, "create") || i < 0 || i+1 >= len(args) {
		return ""
	}
	return args[i+1]
}

// prepare adds the mounts: the root file system that holds QEMU, and the rig's
// own files. Images for other runtimes are left alone.
func prepare(rig, bundle string) error {
	path := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec map[string]json.RawMessage
	var view specs.Spec
	if err := errors.Join(json.Unmarshal(b, &spec), json.Unmarshal(b, &view)); err != nil {
		return err
	}
	rootfs := view.Root.Path
	if !filepath.IsAbs(rootfs) {
		rootfs = filepath.Join(bundle, rootfs)
	}
	if _, err := os.Stat(filepath.Join(rootfs, "krun-sev.json")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	qemu, err := filepath.EvalSymlinks(filepath.Join(rig, "root"))
	if err != nil {
		return err
	}
	mounts := view.Mounts
	for from, to := range map[string]string{
		filepath.Join(qemu, "usr"): "/usr", filepath.Join(qemu, "usr/lib"): "/lib", filepath.Join(qemu, "usr/lib64"): "/lib64",
		filepath.Join(rig, "vmm"): "/.rig/vmm", filepath.Join(rig, "settings.json"): "/.rig/settings.json", filepath.Join(rig, "chip"): "/.rig/chip",
	} {
		if _, err := os.Stat(from); err == nil {
			mounts = append(mounts, bind(from, to, "ro"))
		}
	}
	mounts = append(mounts, bind(filepath.Join(rig, "log"), "/.rig/log", "rw"))
	if spec["mounts"], err = json.Marshal(mounts); err != nil {
		return err
	}
	if b, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

func bind(from, to, mode string) specs.Mount {
	return specs.Mount{Source: from, Destination: to, Type: "bind", Options: []string{"rbind", "rprivate", mode}}
}

// addLibraryPath puts the rig behind what the runtime under test has chosen.
func addLibraryPath(rig string) error {
	path := strings.TrimPrefix(os.Getenv("LD_LIBRARY_PATH")+":"+rig, ":")
	return os.Setenv("LD_LIBRARY_PATH", path)
}
