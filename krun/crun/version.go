package crun

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/hint"
)

// The oldest crun that opens libkrunfw on the host's side. Older ones do so
// inside the container's root file system, where the image can put a library
// of its own and run code as the runtime (crun 8675bafa).
const (
	minMajor = 1
	minMinor = 21
)

var version = regexp.MustCompile(`^crun version (\d{1,6})\.(\d{1,6})(?:\D|$)`)

// CheckVersion reads what `crun --version` of the program at path printed, and
// returns the version. It refuses a crun that would run a workload image as a
// plain container, which one without libkrun does silently and with status 0,
// or unsafely.
func CheckVersion(path, printed string) (string, error) {
	const next = "install crun 1.28 or later (1.21 at least) built with `./configure --with-libkrun`, and libkrun built with SEV=1"
	m := version.FindStringSubmatch(printed)
	if m == nil {
		return "", hint.With(fmt.Errorf("%s is not crun", path), next)
	}
	if !HasLibkrun(printed) {
		return "", hint.With(fmt.Errorf("%s is built without libkrun and would run the image as a plain container", path), next)
	}
	major, _ := strconv.Atoi(m[1]) // digits, bounded by the pattern
	minor, _ := strconv.Atoi(m[2])
	if major < minMajor || major == minMajor && minor < minMinor {
		return "", hint.With(fmt.Errorf("%s is version %d.%d, expected %d.%d or later", path, major, minor, minMajor, minMinor), next)
	}
	return m[1] + "." + m[2], nil
}

// HasLibkrun reads in what `crun --version` printed whether it can start
// microVMs at all.
func HasLibkrun(printed string) bool { return slices.Contains(strings.Fields(printed), "+LIBKRUN") }
