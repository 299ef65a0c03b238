package guest

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initPath is where the initrd has this program; /proc is not there yet.
const initPath = "/init"

// silence makes this process die without a word. What Go's runtime prints in
// dying (panic values, tracebacks, words of the stack) goes to descriptor 2,
// and the host reads the console: a fault that it provokes must not show it
// what the keys are made of. voice is what descriptor 2 was, for what this
// program means to say.
func silence() (voice *os.File, err error) {
	debug.SetTraceback("none")
	fd, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		fd = -1 // nothing was open there: then there is nobody to talk to
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	for std := range 3 {
		if std == null {
			continue
		}
		if err := unix.Dup3(null, std, 0); err != nil {
			return nil, fmt.Errorf("closing descriptor %d: %w", std, err)
		}
	}
	if null > 2 {
		_ = unix.Close(null)
	}
	if fd >= 0 {
		_ = unix.SetNonblock(fd, true) // so that a host that does not read holds nothing up
		voice = os.NewFile(uintptr(fd), "console")
	}
	return voice, refuseCores()
}

// refuseCores keeps the memory of this process out of files, and from others
// of its user. A program that it becomes starts anew, but for the soft limit.
func refuseCores() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("reading the limit of core files: %w", err)
	}
	limit.Cur = 0
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("refusing core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("refusing core files: %w", err)
	}
	return nil
}

// steersRuntime says whether a variable of the environment tells Go's runtime
// what to do: it has been read before main began, and GOTRACEBACK overrules
// SetTraceback. The kernel passes what it does not know of its command line as
// environment.
func steersRuntime(env []string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, "GO") {
			return true
		}
	}
	return false
}

// withoutEnvironment starts this program anew if its environment steers it.
func withoutEnvironment() error {
	if !steersRuntime(os.Environ()) {
		os.Clearenv()
		return nil
	}
	return fmt.Errorf("starting without an environment: %w", syscall.Exec(initPath, os.Args, nil))
}

// A guard runs something of the agent's apart, and knows what to do if it
// panics: nobody else would notice but by the end of the whole process.
type guard func(what string, run func())

// panicLine says where, and nothing of what: the value of a panic may hold
// bytes of whatever was at hand.
func panicLine(what string) string {
	return "panic while " + what + "; next: report it, with the image's version of ccrun"
}
