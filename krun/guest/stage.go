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
// if that failed, after saying why on its result pipe: where, and of which
// class, for the rest is not for the agent's console. early is what went wrong
// before.
func runStage(early error) {
	// Credentials, capabilities and the filter belong to a thread; the one
	// that sets them is the one that executes the workload.
	runtime.LockOSThread()
	for fd := specFD; fd <= stderrFD; fd++ {
		unix.CloseOnExec(fd)
	}
	s := &stage{}
	err := early
	if err == nil {
		err = s.become(stageSteps())
	}
	answer := stageError{Status: statusBootFailed, Step: s.at, Class: classOf(err)}
	if err != nil {
		answer.Detail = cut(err.Error())
	}
	if e := (*statusError)(nil); errors.As(err, &e) {
		answer.Status = e.status
	}
	_ = json.NewEncoder(os.NewFile(resultFD, "result")).Encode(answer)
}

// stage is one life of the stage. Its fields are filled by the steps in order.
type stage struct {
	at   int // the step under way
	spec *stageSpec
	who  process.Credentials
	env  []string
	dir  string
	path string // of the program

	secrets *os.File // nil: there are none
	service *os.File // its directory; nil: there is none
}

// A stageStep is one entry of the stage's table. Its name is for the console.
type stageStep struct {
	name string
	run  func(*stage) error
}

func stageSteps() []stageStep {
	return []stageStep{
		{"reading what to run", (*stage).readSpec},
		{"closing devices off", (*stage).closeDevices},
		{"entering the disk", (*stage).enterRoot},
		{"looking up the user", (*stage).lookUpUser},
		{"making the volumes", (*stage).makeVolumes},
		{"showing the secrets", (*stage).showSecrets},
		{"showing the service", (*stage).showService},
		{"making the working directory", (*stage).makeDirectory},
		{"dropping privileges", (*stage).dropPrivileges},
		{"finding the program", (*stage).findProgram},
		{"executing the program", (*stage).execute},
	}
}

func (s *stage) become(steps []stageStep) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("panic")
		}
	}()
	for i, step := range steps {
		s.at = i
		if err := step.run(s); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) readSpec() error {
	f := os.NewFile(specFD, "specification")
	defer func() { _ = f.Close() }()
	s.spec = &stageSpec{}
	return classed(classInternal, kbs.DecodeStrict(f, 4*process.MaxBytes, s.spec))
}

// closeDevices looks whether the devices of others are out of reach, and makes
// the control group the root of those that the workload sees.
func (s *stage) closeDevices() error {
	if !s.spec.DeviceGroup {
		return nil
	}
	if err := checkDevicesRefused("/dev"); err != nil {
		return err
	}
	return unix.Unshare(unix.CLONE_NEWCGROUP)
}

func (s *stage) enterRoot() (err error) {
	if s.spec.Secrets {
		if s.secrets, err = openPlace(secretsMount); err != nil {
			return err
		}
	}
	if s.spec.Service {
		if s.service, err = openPlace(serviceDir); err != nil {
			return err
		}
	}
	return enterRoot(s.spec)
}

func (s *stage) showSecrets() error { return showPlace(s.secrets, krun.SecretsDir) }

// showService lets the workload connect to the service's socket.
func (s *stage) showService() error { return showPlace(s.service, serviceSeen) }

func (s *stage) lookUpUser() (err error) {
	if s.who, err = workloadUser(&s.spec.Process, "/etc", s.spec.ReadOnly); err != nil {
		return &statusError{statusNotExecutable, classed(classUser, err)}
	}
	s.env = environment(&s.spec.Process, s.who.Home, s.spec.Hostname)
	return nil
}

func (s *stage) makeVolumes() error {
	if !s.spec.ReadOnly {
		return nil
	}
	return classed(classDirectory, mountVolumes(&s.spec.Process, s.spec.Volumes))
}

func (s *stage) makeDirectory() (err error) {
	s.dir, err = workingDirectory(s.spec.Process.WorkingDir, s.who)
	return classed(classDirectory, err)
}

func (s *stage) dropPrivileges() error {
	return classed(classRefused, dropPrivileges(s.who, stdoutFD, stderrFD))
}

func (s *stage) findProgram() (err error) {
	if err := unix.Chdir(s.dir); err != nil {
		return &statusError{statusNotExecutable, classed(classDirectory, fmt.Errorf("entering the working directory: %w", err))}
	}
	s.path, err = lookUp(process.Arguments(&s.spec.Process)[0], getenv(s.env, "PATH"), s.dir)
	return err
}

// execute gives the streams to the workload at the last moment: what is written
// to them before is this program's, in dying. The mark tells the agent that the
// pipe's end will be the workload's begin, and not the stage's death.
func (s *stage) execute() error {
	for fd, from := range map[int]int{1: stdoutFD, 2: stderrFD} {
		if err := unix.Dup3(from, fd, 0); err != nil {
			return classed(classInternal, err)
		}
	}
	if _, err := unix.Write(resultFD, []byte{executing}); err != nil {
		return classed(classInternal, err)
	}
	err := syscall.Exec(s.path, process.Arguments(&s.spec.Process), s.env)
	if errors.Is(err, unix.ENOENT) { // it is there, but not its interpreter
		return &statusError{statusNotFound, classed(classNotFound, err)}
	}
	return &statusError{statusNotExecutable, classed(classNotExecutable, err)}
}

// executing is the byte on the result pipe before the workload begins.
const executing = '!'

// workingDirectory makes dir if the image lacks it, the user's own, as Podman
// does.
func workingDirectory(dir string, who process.Credentials) (string, error) {
	if dir == "" {
		dir = "/"
	}
	if dir[0] != '/' {
		return "", fmt.Errorf("working directory %q, expected an absolute path", dir)
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
	Volumes    []string // the workload's own, which are mounted
	Service    bool     // there is one
	// DeviceGroup says that the stage must be in openDeviceGroup's group.
	DeviceGroup bool
	Secrets     bool // there is a file system of them to show
}

// stageError is why the stage could not become the workload.
type stageError struct {
	Status int
	Step   int // of stageSteps
	Class  class
	Detail string // for the sealed log alone
}

// error is e as the console may have it. Whatever it says, only names out of the
// tables get there.
func (e *stageError) error() error {
	steps, name := stageSteps(), "becoming the workload"
	if e.Step >= 0 && e.Step < len(steps) {
		name = steps[e.Step].name
	}
	err := hint.With(fmt.Errorf("%s: %s", name, e.Class), "%s", remedies()[e.Class].next)
	return &statusError{e.Status, openly(&discreetError{err, e.Detail})}
}
