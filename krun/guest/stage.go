package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
)

// StageName is argv[0] of this program as the stage between agent and
// workload. The kernel never starts PID 1 under it.
const StageName = "ccrun-init-stage"

// File descriptors that startStage hands to the stage.
const (
	specFD   = 3
	resultFD = 4
	stdoutFD = 5 // the workload's
	stderrFD = 6
)

// runStage is the stage: PID 1 of the workload's namespaces, which it fills,
// then drops what the workload must not have and becomes it. It returns only
// if that failed, after saying why on its result pipe.
// early is what went wrong before.
func runStage(early error) {
	// Credentials, capabilities and the filter belong to a thread; the one
	// that sets them is the one that executes the workload.
	runtime.LockOSThread()
	for fd := specFD; fd <= stderrFD; fd++ {
		unix.CloseOnExec(fd)
	}
	err := early
	if err == nil {
		err = becomeWorkload()
	}
	answer := stageError{Status: statusBootFailed, Text: err.Error(), Hint: hint.Of(err)}
	if s := (*statusError)(nil); errors.As(err, &s) {
		answer.Status = s.status
	}
	_ = json.NewEncoder(os.NewFile(resultFD, "result")).Encode(answer)
}

func becomeWorkload() (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New(panicLine("becoming the workload"))
		}
	}()
	spec, err := readSpec()
	if err != nil {
		return err
	}
	if err := enterRoot(spec); err != nil {
		return err
	}
	who, err := workloadUser(&spec.Process, "/etc", spec.ReadOnly)
	if err != nil {
		return &statusError{statusNotExecutable, err}
	}
	if spec.ReadOnly {
		if err := mountVolumes(&spec.Process); err != nil {
			return err
		}
	}
	env := environment(&spec.Process, who.Home, spec.Hostname)
	dir, err := workingDirectory(spec.Process.WorkingDir, who)
	if err != nil {
		return err
	}
	if err := dropPrivileges(who, stdoutFD, stderrFD); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return &statusError{statusNotExecutable, fmt.Errorf("entering working directory %s: %w", dir, err)}
	}
	argv := process.Arguments(&spec.Process)
	path, err := lookUp(argv[0], getenv(env, "PATH"), dir)
	if err != nil {
		return err
	}
	err = execute(path, argv, env)
	return &statusError{execStatus(err), hint.With(fmt.Errorf("executing %s: %w", path, err),
		"the image must be for this machine's architecture and have the program's interpreter")}
}

// execute gives the streams to the workload at the last moment: what is written
// to them before is this program's, in dying.
func execute(path string, argv, env []string) error {
	for fd, from := range map[int]int{1: stdoutFD, 2: stderrFD} {
		if err := unix.Dup3(from, fd, 0); err != nil {
			return fmt.Errorf("giving the workload its output: %w", err)
		}
	}
	return syscall.Exec(path, argv, env)
}

// execStatus tells a missing interpreter (127) from what cannot run (126).
func execStatus(err error) int {
	if errors.Is(err, unix.ENOENT) {
		return statusNotFound
	}
	return statusNotExecutable
}

func readSpec() (*stageSpec, error) {
	f := os.NewFile(specFD, "specification")
	defer func() { _ = f.Close() }()
	var spec stageSpec
	if err := kbs.DecodeStrict(f, 4*process.MaxBytes, &spec); err != nil {
		return nil, fmt.Errorf("reading the stage's specification: %w", err)
	}
	return &spec, nil
}

// workingDirectory makes dir if the image lacks it, the user's own, as Podman
// does.
func workingDirectory(dir string, who process.Credentials) (string, error) {
	if dir == "" {
		dir = "/"
	}
	if dir[0] != '/' {
		return "", hint.With(fmt.Errorf("working directory %q, expected an absolute path", dir), "correct the image's WorkingDir")
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the working directory: %w", err)
	}
	if err := os.Lchown(dir, who.UID, who.GID); err != nil {
		return "", fmt.Errorf("making the working directory: %w", err)
	}
	return dir, nil
}

// stageSpec is all the stage needs to know.
type stageSpec struct {
	Hostname   string
	ReadOnly   bool
	Hosts      string
	ResolvConf string // empty: keep the image's
	Process    krun.Process
}

// stageError is why the stage could not become the workload.
type stageError struct {
	Status int
	Text   string
	Hint   string
}
