// Package wrapper is the OCI runtime that Podman runs as "krun". It hands
// every command to crun; for a ccrun workload image it first composes the
// library from which libkrun boots the machine, with the host's kernel and
// the image's initrd, and points the loader at it. It protects the host from
// images; nothing that a guest trusts depends on it.
package wrapper

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/volumefile"
)

// Wrapper is one call of the runtime. Everything it touches is a member.
type Wrapper struct {
	Crun     string // path of crun, or empty to look in CrunDirs, then PATH
	CrunDirs []string
	Library  string // path of libkrunfw-sev.so.5, or empty to search
	Search   firmware.Search
	// StateDir holds one directory per container, mode 0700.
	StateDir string
	noState  error // why there is no StateDir
	// BootID tells this boot of the host from others (proc(5), random/boot_id).
	BootID string
	Pause  []string // paths at which this host may have Podman's pause program
	// KVM and SEV are the device nodes a confidential machine needs.
	KVM, SEV string
	SNP      func(kvm string) (bool, error)              // SNPMachines
	Exec     func(path string, argv, env []string) error // returns only on failure
	Version  func(crun string) (string, error)           // output of `crun --version`
	QEMU     QEMU
	Environ  []string
	Stdin    *os.File
	Stderr   io.Writer
	Now      func() time.Time
}

// Run handles argv, argv[0] included, and returns the exit status if it did
// not become crun.
func (w *Wrapper) Run(argv []string) int {
	c, err := crun.Parse(argv)
	if err == nil {
		err = w.run(c, argv)
	}
	report(c, err, w.Stderr, w.Now())
	return 1
}

// report writes err to stderr and to crun's log.
func report(c crun.Command, err error, stderr io.Writer, now time.Time) {
	msg := message(err)
	fmt.Fprintln(stderr, msg)
	if err := c.WriteLog(now, msg); err != nil {
		fmt.Fprintf(stderr, "ccrun: writing log: %v\n", err)
	}
}

func (w *Wrapper) run(c crun.Command, argv []string) error {
	path, err := w.FindCrun()
	if err != nil {
		return err
	}
	// The name is what makes crun choose its krun handler.
	name, env, args := "krun", w.Environ, argv[1:]
	switch c.Verb {
	case "create", "run":
		p, err := w.prepare(c, path)
		if err != nil {
			return err
		}
		if p.plain {
			name = "crun"
		}
		if p.library != "" {
			env = withLibraryPath(env, p.library)
		}
		if p.config != "" {
			args = c.WithConfig(p.config)
		}
	case "start":
		w.warnOf(c)
	case "exec":
		if err := refuseExec(c); err != nil {
			return err
		}
	case "delete":
		// crun loaded the library when it created the container: nobody needs
		// the file any more, whatever becomes of this delete.
		if err := w.cleanUp(c); err != nil {
			return err
		}
	}
	err = w.Exec(path, append([]string{name}, args...), env)
	return fmt.Errorf("executing %s: %w", path, err)
}

// plan is how crun is to start a container.
type plan struct {
	library string // directory of the composed library; empty: none
	plain   bool   // without the krun handler
	config  string // specification in place of the bundle's; empty: the bundle's
}

// prepare does what an image needs before crun sees it.
func (w *Wrapper) prepare(c crun.Command, path string) (plan, error) {
	spec, err := c.Open()
	if err != nil {
		return plan{}, err
	}
	image, err := readImage(spec)
	if err != nil {
		return plan{}, err
	}
	if image == nil {
		return w.prepareOther(c, spec, path)
	}
	if image.hints.Profile != "" {
		config, err := w.QEMU.prepare(c, spec, image)
		return plan{plain: true, config: config}, err
	}
	dir, err := w.prepareWorkload(c, spec, image, path)
	return plan{library: dir}, err
}

// prepareWorkload returns the directory of the workload's library; empty for an
// image that boots libkrunfw's own initrd.
func (w *Wrapper) prepareWorkload(c crun.Command, spec *crun.Spec, image *image, path string) (dir string, err error) {
	if _, err := w.CheckCrun(path); err != nil {
		return "", err
	}
	var lib []byte
	var other []string
	if image.initrd != nil { // else one for libkrunfw's own initrd
		if lib, other, err = w.compose(spec, image); err != nil {
			return "", err
		}
	}
	if err := spec.AddRequest(image.hints.DiskBytes); err != nil {
		return "", err
	}
	own, volumes, err := volumefile.Attach(c, spec, image.hints.Volumes)
	if err != nil {
		return "", err
	}
	warnings, err := w.configure(spec, image, volumes)
	if err != nil {
		return "", err
	}
	warnings = append(append(warnings, own...), other...)
	if err := spec.AddScratch(image.hints.ScratchBytes()); err != nil {
		return "", err
	}
	if lib == nil {
		w.keepWarnings(c, spec, warnings)
		return "", nil
	}
	keep := contents{library: lib, warnings: lines(warnings)}
	if w.startsNow(c, keep.warnings) {
		keep.warnings = ""
	}
	return w.install(spec, keep)
}

// refuseExec is the answer to `podman exec` for the container of a workload, or a
// pod's. What cannot be found out is crun's to answer.
func refuseExec(c crun.Command) error {
	spec, err := c.Running()
	if err != nil {
		return nil
	}
	if hasConfig(spec) {
		return crun.RefuseExec()
	}
	if pauses(spec) {
		return errors.New("the container is a pod's infra container, in which nothing runs but Podman's program that sleeps")
	}
	return nil
}

// hasConfig says whether a container's root is a workload image's. readImage would
// refuse mounts over its files, of which the one over the disk may be ours.
func hasConfig(spec *crun.Spec) bool {
	root, err := os.OpenRoot(spec.RootFS)
	if err != nil {
		return false
	}
	defer root.Close()
	_, err = root.Lstat(krun.TEEConfigFile)
	return err == nil
}

// prepareOther is for an image that asks for no TEE.
func (w *Wrapper) prepareOther(c crun.Command, spec *crun.Spec, path string) (p plan, err error) {
	warnings := []string{pauseWarning}
	notPause := checkPause(spec, w.Pause)
	if p.plain = notPause == nil; !p.plain {
		warnings, err = w.judgeOther(path)
	}
	if notPause != nil && !errors.Is(notPause, errNoPause) {
		odd := fmt.Errorf("it is like a pod's infra container, but %w", notPause)
		if err != nil {
			return plan{}, hint.With(fmt.Errorf("%w; %w", odd, err), "remove the pod and the image localhost/podman-pause, which Podman makes anew of this host's program")
		}
		warnings = append(warnings, odd.Error())
	}
	if err != nil {
		return plan{}, err
	}
	w.keepWarnings(c, spec, warnings)
	return p, nil
}

// judgeOther decides on an image that asks for no TEE, whose user asked for the
// runtime of those that do.
func (w *Wrapper) judgeOther(path string) (warnings []string, err error) {
	printed, err := w.Version(path)
	if err != nil {
		return nil, fmt.Errorf("asking %s for its version: %w", path, err)
	}
	if !crun.HasLibkrun(printed) {
		return nil, hint.With(fmt.Errorf("the image is no confidential workload image, and %s, built without libkrun, would run it as a plain container", path),
			"leave out --runtime krun, or make a workload image with `ccrun build`")
	}
	return []string{"the image is no confidential workload image: it runs as an ordinary microVM, which this host can look into and change"}, nil
}

// Firmware reads the host's libkrunfw.
func (w *Wrapper) Firmware() (*firmware.Bundle, error) {
	path := w.Library
	if path == "" {
		var err error
		if path, err = w.Search.Find(kbs.SNP); err != nil { // the one TEE of crun's
			return nil, hint.With(err, `install libkrunfw built with SEV=1, or name the file in %s: {"library":"/path/to/%s"}`, ConfigPath, firmware.LibraryName)
		}
	}
	return firmware.Load(path)
}

// compose builds the library of the image's initrd and the host's firmware. That
// the image was built for another is only worth a warning: the workload may have
// been updated since, which the key server knows and the image does not.
func (w *Wrapper) compose(spec *crun.Spec, image *image) (lib []byte, warnings []string, err error) {
	fw, err := w.Firmware()
	if err != nil {
		return nil, nil, err
	}
	// The annotation is for older images; `podman generate kube` cuts it.
	want, have := cmp.Or(image.hints.Firmware, spec.Annotations[krun.LabelFirmware]), fmt.Sprintf("%x", fw.Digest)
	if want != "" && want != have {
		warnings = []string{fmt.Sprintf("firmware %s is not the one the image was built for (%s): if the key server denies the guest, "+
			"register what this one measures: `ccrun workload update ID --firmware %s`", fw.Path, want, fw.Path)}
	}
	lib, err = firmware.BuildLibrary(fw, image.initrd)
	return lib, warnings, err
}

func withLibraryPath(env []string, dir string) []string {
	const name = "LD_LIBRARY_PATH="
	out := make([]string, 0, len(env)+1)
	value := name + dir
	for _, e := range env {
		if old, ok := strings.CutPrefix(e, name); !ok {
			out = append(out, e)
		} else if old != "" {
			value = name + dir + ":" + old
		}
	}
	return append(out, value)
}

// message is err with its hint, on one line.
func message(err error) string {
	if next := hint.Of(err); next != "" {
		return "ccrun: " + err.Error() + ": " + next
	}
	return "ccrun: " + err.Error()
}
