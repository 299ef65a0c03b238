package guest

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// A class is all that is said of an error once the disk is open: the host reads
// the console, and names of files, users and variables are as confidential as
// what is in them, whether or not it may read the workload's own output.
// docs/operations.md explains each.
type class string

const (
	classDamaged       class = "damaged"
	classChanged       class = "changed"
	classConfiguration class = "bad-configuration"
	classConfigured    class = "config-refused"
	classSecrets       class = "secrets-refused"
	classNotFound      class = "not-found"
	classNotExecutable class = "not-executable"
	classUser          class = "bad-user"
	classDirectory     class = "bad-directory"
	classSpace         class = "no-space"
	classMemory        class = "no-memory"
	classReadOnly      class = "read-only"
	classUnsupported   class = "unsupported"
	classRefused       class = "refused"
	classInternal      class = "internal"
)

// A remedy is what a class means, and what to do.
type remedy struct{ text, next string }

func remedies() map[class]remedy {
	return map[class]remedy{
		classDamaged:       {"the disk's content does not verify, or cannot be read", "pull the image again; if that does not help, check the host's disk"},
		classChanged:       {"it is not what was measured", "pull or build the image again"},
		classConfiguration: {"the image's configuration cannot start", "build the image again with this version of ccrun"},
		classConfigured:    {"what the key server has for the process is not what the image takes", "`ccrun audit` of the workload's owner names the session, and `ccrun explain` of that the reason"},
		classSecrets:       {"a secret that the image needs is missing, or does not fit", "`ccrun audit` of the workload's owner names the session, and `ccrun explain` of that the reason"},
		classNotFound:      {"the program, or the interpreter that it names, is not in the image", "correct Entrypoint, Cmd or PATH of the image, and run it with Podman first"},
		classNotExecutable: {"the program cannot be executed", "make it executable for the image's user, and of this machine's architecture"},
		classUser:          {"the image's user or group is not in it, or its databases cannot be read", "correct User, /etc/passwd or /etc/group of the image"},
		classDirectory:     {"a directory is missing, or is none", "the image needs /proc, /sys and /dev, and its WorkingDir and VOLUMEs must be directories"},
		classSpace:         {"the disk is full", "remove the container and start another, or build the image with a larger --scratch"},
		classMemory:        {"the guest has not enough memory", "build the image with more --memory"},
		classReadOnly:      {"the disk cannot be written", "run or build it without --read-only, or have it write to /tmp, /run or a VOLUME"},
		classUnsupported:   {"the guest's kernel lacks something", "build the image with other --firmware"},
		classRefused:       {"the guest's kernel refuses it", "report it, with the image's version of ccrun"},
		classInternal:      {"it failed", "run the image with Podman to see whether it is the image; else report it, with the image's version of ccrun"},
	}
}

// String is what the console gets.
func (c class) String() string {
	r, ok := remedies()[c]
	if !ok {
		return string(classInternal)
	}
	return string(c) + ": " + r.text
}

// classError is an error of which the host may know the class.
type classError struct {
	class class
	err   error
}

func (e *classError) Error() string { return e.err.Error() }
func (e *classError) Unwrap() error { return e.err }

// classed says which kind of error err is, if it is one.
func classed(c class, err error) error {
	if err == nil {
		return nil
	}
	return &classError{c, err}
}

// classOf is the class of err: what the disk answers before what was said of the
// error, and that before what the kernel answers.
func classOf(err error) class {
	is := func(errnos ...unix.Errno) bool {
		return slices.ContainsFunc(errnos, func(e unix.Errno) bool { return errors.Is(err, e) })
	}
	var said *classError
	switch {
	case is(unix.EIO, unix.EUCLEAN, unix.EBADMSG, unix.EILSEQ):
		return classDamaged
	case is(unix.ENOMEM):
		return classMemory
	case is(unix.ENOSPC, unix.EDQUOT):
		return classSpace
	case errors.As(err, &said):
		return said.class
	case is(unix.EROFS):
		return classReadOnly
	case is(unix.ENODEV, unix.ENOSYS, unix.EOPNOTSUPP):
		return classUnsupported
	case is(unix.EPERM, unix.EACCES):
		return classRefused
	case is(unix.ENOENT, unix.ENOTDIR):
		return classDirectory
	}
	return classInternal
}

// An openError says nothing of what is on the disk.
type openError struct{ error }

func (e *openError) Unwrap() error { return e.error }

// openly marks an error that may be told as it is.
func openly(err error) error {
	if err == nil {
		return nil
	}
	return &openError{err}
}

// discreet is err as the host may read it, with its exit status.
func discreet(err error) error {
	var open *openError
	if err == nil || errors.As(err, &open) {
		return err
	}
	c := classOf(err)
	told := hint.With(errors.New(c.String()), "%s", remedies()[c].next)
	told = &discreetError{told, err.Error()}
	var s *statusError
	if errors.As(err, &s) {
		return &statusError{s.status, told}
	}
	return told
}

// A discreetError is told to the host, but for its detail, which is for the
// sealed log.
type discreetError struct {
	error
	detail string
}

func (e *discreetError) Unwrap() error { return e.error }

// withDetail is how an error reads in the sealed log.
func withDetail(err error) string {
	var d *discreetError
	if errors.As(err, &d) && d.detail != "" {
		return err.Error() + ": " + d.detail
	}
	return err.Error()
}

// cut bounds a detail, which goes through a pipe to PID 1.
func cut(detail string) string { return detail[:min(len(detail), maxDetail)] }

const maxDetail = 4 << 10
