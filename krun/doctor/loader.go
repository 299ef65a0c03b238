package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
)

const (
	libkrun = "libkrun-sev.so.1"
	// The loader's path is part of the ABI; with --help it prints where it
	// looks (glibc 2.33 and later).
	loader = "/lib64/ld-linux-x86-64.so.2"
)

// libkrun finds the library as dlopen(3) does in crun, which is what asks for
// it by its bare name.
func (h *Host) libkrun(ctx context.Context) (string, error) {
	for _, dir := range filepath.SplitList(h.Getenv("LD_LIBRARY_PATH")) {
		if path := filepath.Join(dir, libkrun); dir != "" && h.exists(path) {
			return "", hint.With(warning{fmt.Errorf("%s is found by LD_LIBRARY_PATH, which reaches crun from a shell at best, with Podman 4.8 or later", path)},
				"%s", makeKnown(dir))
		}
	}
	path := h.cached(ctx)
	for _, dir := range h.systemDirs(ctx) {
		if p := filepath.Join(dir, libkrun); path == "" && h.exists(p) {
			path = p
		}
	}
	if path != "" {
		return h.judgeLibkrun(path)
	}
	for _, dir := range firmware.SystemSearch().Dirs {
		if p := filepath.Join(dir, libkrun); h.exists(p) {
			return "", hint.With(fmt.Errorf("%s is there, but the dynamic loader does not look in that directory", p), "%s", makeKnown(dir))
		}
	}
	return "", fmt.Errorf("the dynamic loader finds no %s", libkrun)
}

func makeKnown(dir string) string {
	return fmt.Sprintf("echo %s >/etc/ld.so.conf.d/libkrun.conf && ldconfig", dir)
}

func (h *Host) exists(path string) bool {
	_, err := os.Stat(h.path(path))
	return err == nil
}

var cacheLine = regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(libkrun) + ` \([^)]*x86-64[^)]*\) => (/.*)$`)

// cached is where the loader's cache has libkrun, "" if it has not, or the file
// went since.
func (h *Host) cached(ctx context.Context) string {
	out, err := h.Output(ctx, "/sbin/ldconfig", "-p")
	if err != nil {
		return ""
	}
	for _, m := range cacheLine.FindAllStringSubmatch(out, -1) {
		if h.exists(m[1]) {
			return m[1]
		}
	}
	return ""
}

var systemDir = regexp.MustCompile(`(?m)^\s+(/.*) \(system search path\)$`)

// systemDirs are where the loader looks last.
func (h *Host) systemDirs(ctx context.Context) (dirs []string) {
	out, err := h.Output(ctx, loader, "--help")
	if err != nil {
		return nil // an older one: all its directories are in the cache
	}
	for _, m := range systemDir.FindAllStringSubmatch(out, -1) {
		dirs = append(dirs, m[1])
	}
	return dirs
}

var libkrunVersion = regexp.MustCompile(`\.so\.1\.(\d{1,6})\.`)

// judgeLibkrun reads the version in the name that path links to.
func (h *Host) judgeLibkrun(path string) (string, error) {
	target, err := filepath.EvalSymlinks(h.path(path))
	if err != nil {
		return "", err
	}
	m := libkrunVersion.FindStringSubmatch(filepath.Base(target))
	if m == nil {
		return path, nil
	}
	minor, _ := strconv.Atoi(m[1]) // digits, bounded by the pattern
	switch {
	case minor < 16:
		return "", fmt.Errorf("%s is version 1.%d, which boots with another launch digest: expected 1.16 to 1.19", path, minor)
	case minor > 19:
		return "", warning{fmt.Errorf("%s is version 1.%d: launch digests were compared with 1.18 and 1.19", path, minor)}
	}
	return fmt.Sprintf("%s, version 1.%d", path, minor), nil
}
