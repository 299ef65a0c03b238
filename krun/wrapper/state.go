package wrapper

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
)

// validID is what a container id may look like to be a directory's name.
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,254}$`)

const (
	bundleLink = "bundle" // in a container's directory: its bundle
	bootFile   = "boot"   // in a container's directory: the host's boot that made it
	// warningsFile is what to say when the container starts.
	warningsFile = "warnings"
	newPrefix    = ".new-"
	// staleAfter is when a directory that nobody holds will never be finished: its
	// maker holds it by then.
	staleAfter = time.Minute
	maxBootID  = 64
)

// contents is what goes into a container's directory.
type contents struct {
	library  []byte // may be missing
	warnings string
}

// install puts c into a directory of its own, whole or not at all, and returns
// the directory.
func (w *Wrapper) install(s *crun.Spec, c contents) (dir string, err error) {
	if !validID.MatchString(s.ID) {
		return "", fmt.Errorf("container id %q is not valid", s.ID)
	}
	if err := w.openStateDir(); err != nil {
		return "", fmt.Errorf("installing firmware: %w", err)
	}
	w.sweep()
	tmp, err := os.MkdirTemp(w.StateDir, newPrefix) // mode 0700
	if err != nil {
		return "", fmt.Errorf("installing firmware: %w", err)
	}
	if release, err := hold(tmp); err == nil { // where nothing can be held, nothing is taken for left
		defer release()
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("installing firmware: %w", err), os.RemoveAll(tmp))
		}
	}()
	if err := c.write(tmp, s.Bundle, w.BootID); err != nil {
		return "", err
	}
	dir = filepath.Join(w.StateDir, s.ID)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

// keepWarnings is for a container that needs no directory but for its warnings.
// Where they cannot be kept they are printed at once.
func (w *Wrapper) keepWarnings(c crun.Command, s *crun.Spec, warnings []string) {
	text := lines(warnings)
	if text == "" || w.startsNow(c, text) {
		return
	}
	if _, err := w.install(s, contents{warnings: text}); err != nil {
		_, _ = io.WriteString(w.Stderr, text)
	}
}

// startsNow prints warnings for a command that creates and starts in one.
func (w *Wrapper) startsNow(c crun.Command, warnings string) bool {
	if c.Verb == "run" {
		_, _ = io.WriteString(w.Stderr, warnings)
	}
	return c.Verb == "run"
}

// warnOf gives the container that starts the warnings of its creation.
func (w *Wrapper) warnOf(c crun.Command) {
	if w.StateDir != "" && validID.MatchString(c.ID) {
		giveWarnings(c, filepath.Join(w.StateDir, c.ID, warningsFile), w.Stderr)
	}
}

func (c contents) write(dir, bundle, boot string) error {
	if c.library != nil {
		if err := firmware.WriteFile(filepath.Join(dir, firmware.LibraryName), c.library, 0o500); err != nil {
			return err
		}
	}
	if err := os.Symlink(bundle, filepath.Join(dir, bundleLink)); err != nil {
		return err
	}
	for name, text := range map[string]string{bootFile: boot, warningsFile: c.warnings} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// openStateDir makes StateDir, or checks that nobody else made it: a library
// in another user's directory would be that user's code in the runtime.
func (w *Wrapper) openStateDir() error {
	if w.noState != nil {
		return w.noState
	}
	if !filepath.IsAbs(w.StateDir) {
		return fmt.Errorf("state directory %q is not an absolute path", w.StateDir)
	}
	if err := os.MkdirAll(filepath.Dir(w.StateDir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(w.StateDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	_, err := w.LibraryDir()
	return err
}

// LibraryDir is where composed libraries lie. If it is there, it is this
// user's own.
func (w *Wrapper) LibraryDir() (string, error) {
	if w.noState != nil {
		return "", w.noState
	}
	var st unix.Stat_t
	switch err := unix.Lstat(w.StateDir, &st); {
	case errors.Is(err, fs.ErrNotExist):
		return w.StateDir, nil
	case err != nil:
		return "", &os.PathError{Op: "lstat", Path: w.StateDir, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o777 != 0o700 || int(st.Uid) != os.Geteuid():
		return "", fmt.Errorf("%s is not a directory of this user with mode 0700", w.StateDir)
	}
	return w.StateDir, nil
}

// sweep removes what containers left that were never deleted, some 30 MiB
// each: one whose creation failed, so that its bundle is gone, and those that
// ran when the host lost power. Errors leave it for the next time.
func (w *Wrapper) sweep() {
	entries, err := os.ReadDir(w.StateDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(w.StateDir, e.Name())
		if strings.HasPrefix(e.Name(), newPrefix) {
			if info, err := e.Info(); err == nil && w.Now().Sub(info.ModTime()) > staleAfter {
				removeUnheld(path)
			}
			continue
		}
		target, err := os.Readlink(filepath.Join(path, bundleLink))
		if err != nil || !e.IsDir() {
			continue // not ours
		}
		boot, err := bounded.File(filepath.Join(path, bootFile), maxBootID)
		if _, gone := os.Lstat(target); errors.Is(gone, fs.ErrNotExist) || err == nil && string(boot) != w.BootID {
			_ = os.RemoveAll(path)
		}
	}
}

// hold has removeUnheld leave dir alone until release is called or this process
// ends, whatever ends it.
func hold(dir string) (release func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// removeUnheld removes what a runtime that was killed was making.
func removeUnheld(dir string) {
	if release, err := hold(dir); err == nil {
		_ = os.RemoveAll(dir)
		release()
	}
}

// cleanUp removes the directories of the containers that c deletes.
func (w *Wrapper) cleanUp(c crun.Command) error {
	if w.StateDir == "" {
		return nil
	}
	ids := []string{c.ID}
	if c.Regex {
		pattern, err := regexp.CompilePOSIX(c.ID)
		if err != nil {
			return nil // crun says what is wrong with it
		}
		ids = nil
		entries, err := os.ReadDir(w.StateDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing firmware: %w", err)
		}
		for _, e := range entries {
			if pattern.MatchString(e.Name()) {
				ids = append(ids, e.Name())
			}
		}
	}
	for _, id := range ids {
		if !validID.MatchString(id) {
			continue // never had a directory
		}
		if err := os.RemoveAll(filepath.Join(w.StateDir, id)); err != nil {
			return fmt.Errorf("removing firmware of container %s: %w", id, err)
		}
	}
	return nil
}
