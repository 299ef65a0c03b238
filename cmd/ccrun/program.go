package main

import (
	"log/slog"

	"github.com/sirupsen/logrus"

	"github.com/ccrun/ccrun/cmd/face"
)

// program is ccrun as its users see it.
var program = face.Program{Name: "ccrun", Level: slog.LevelWarn, Raw: []string{"run"}, Started: setLibrariesLog, Elsewhere: elsewhere()}

// elsewhere is where people look for what ccrun has not.
func elsewhere() map[string]string {
	const enter = "the container is a confidential VM, which the host can neither enter nor copy into: build what you need into the image; " +
		"what it prints is in `podman logs` or `ccrun logs`, what it keeps in a volume (`ccrun build --volume`), what it is told in `ccrun workload config`"
	m := map[string]string{"exec": enter, "cp": enter, "attach": enter, "shell": enter, "ssh": enter, "healthcheck": enter + "; and probe a port of it for its health"}
	for _, w := range []string{"stop", "start", "restart", "kill", "rm", "rmi", "wait", "pull", "push", "images", "port", "pause", "unpause", "pod"} {
		m[w] = "`podman " + w + "` does that for workloads, too"
	}
	m["stats"] = "`ccrun top` shows what workloads use"
	m["events"], m["history"] = "`ccrun session ls` and `ccrun audit` have what happened", "`ccrun workload show ID` has a workload's"
	for _, w := range []string{"token", "tenant", "policy", "backup", "restore", "init", "serve", "master-key", "machines", "advisories"} {
		m[w] = "`attest-server " + w + "`, on the server's machine, does that"
	}
	m["policy"] = "`attest-server policy`, on the server's machine, tests policies; `ccrun verify --policy FILE` appraises by one"
	return m
}

// setLibrariesLog has the containers libraries, which share a log of their
// own, log as we do.
func setLibrariesLog(level slog.Level) {
	switch {
	case level < slog.LevelInfo:
		logrus.SetLevel(logrus.DebugLevel)
	case level < slog.LevelWarn:
		logrus.SetLevel(logrus.InfoLevel)
	case level < slog.LevelError:
		logrus.SetLevel(logrus.WarnLevel)
	default:
		logrus.SetLevel(logrus.ErrorLevel)
	}
}
