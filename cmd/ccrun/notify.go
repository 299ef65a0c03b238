package main

import (
	"log/slog"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/ccrun/ccrun/cmd/face"
)

// maxNotified bounds what systemd is told of a line.
const maxNotified = 400

// supervisor is systemd, as the manager of a Type=notify unit; without one,
// everything here does nothing.
type supervisor struct {
	log  *slog.Logger
	tell func(state string) (bool, error) // whether there is one
	once sync.Once
}

func systemd(log *slog.Logger) *supervisor {
	return &supervisor{log: log, tell: func(state string) (bool, error) { return daemon.SdNotify(false, state) }}
}

// status is what `systemctl status` shows.
func (s *supervisor) status(text string) bool { return s.send("STATUS=" + oneLine(text)) }

// runs is the readiness that units after this one wait for.
func (s *supervisor) runs() { s.send(daemon.SdNotifyReady + "\nSTATUS=the workload runs") }

func (s *supervisor) stopping() {
	s.send(daemon.SdNotifyStopping + "\nSTATUS=stopping the workload")
}

func (s *supervisor) send(state string) bool {
	told, err := s.tell(state)
	if err != nil {
		s.once.Do(func() { s.log.Warn("telling systemd", "error", err) })
	}
	return told
}

// oneLine makes what a guest says fit for a message whose lines are assignments.
func oneLine(text string) string {
	text = face.Printable(text)
	if len(text) > maxNotified {
		text = strings.ToValidUTF8(text[:maxNotified], "") + "..."
	}
	return text
}
