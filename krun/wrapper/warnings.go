package wrapper

import (
	"fmt"
	"io"
	"strings"

	"github.com/ccrun/ccrun/bounded"
)

// What a runtime prints while it creates a container goes to the container's
// log, before anybody is attached; what it prints while it starts one goes to
// whoever says `podman start` or `podman run`. Warnings are for both.

const maxWarningsBytes = 1 << 20

// say prints warnings, each on a line, and returns what it printed.
func say(to io.Writer, warnings []string) string {
	var text strings.Builder
	for _, line := range warnings {
		text.WriteString("ccrun: " + line + "\n")
	}
	fmt.Fprint(to, text.String())
	return text.String()
}

// repeat prints what was said when the container was created, if anything was.
func repeat(to io.Writer, path string) {
	if b, err := bounded.Regular(path, maxWarningsBytes); err == nil {
		_, _ = to.Write(b)
	}
}
