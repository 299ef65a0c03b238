package wrapper

import (
	"io"
	"strings"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun/crun"
)

// What a runtime prints while it creates a container goes to the container's
// log, or else to whoever attached quickly enough. Warnings are therefore kept
// until the container starts, when Podman has attached whom it will, and then
// written to the container's own standard error: once to the log, and once to
// each who is attached.

const (
	maxWarningsBytes = 1 << 20
	// warnTimeout is for an engine that does not read what its container says.
	warnTimeout = 5 * time.Second
)

// lines is warnings as they are printed.
func lines(warnings []string) string {
	var text strings.Builder
	for _, w := range warnings {
		text.WriteString("ccrun: " + w + "\n")
	}
	return text.String()
}

// giveWarnings writes what was kept at path when c's container was created, if
// anything was; to stderr where the container cannot be told.
func giveWarnings(c crun.Command, path string, stderr io.Writer) {
	text, err := bounded.Regular(path, maxWarningsBytes)
	if err != nil || len(text) == 0 {
		return
	}
	if !writeTo(c, text) {
		_, _ = stderr.Write(text)
	}
}

// writeTo says whether text is on the container's standard error.
func writeTo(c crun.Command, text []byte) bool {
	f, err := c.Stderr()
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	_ = f.SetWriteDeadline(time.Now().Add(warnTimeout)) // what has no deadline does not block
	n, _ := f.Write(text)
	return n > 0
}
