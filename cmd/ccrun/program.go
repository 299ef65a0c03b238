package main

import (
	"log/slog"

	"github.com/sirupsen/logrus"

	"github.com/ccrun/ccrun/cmd/face"
)

// program is ccrun as its users see it.
var program = face.Program{Name: "ccrun", Level: slog.LevelWarn, Raw: []string{"run"}, Started: setLibrariesLog}

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
