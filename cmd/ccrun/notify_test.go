package main

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestNotify: what systemd gets is one assignment a line, whatever a guest says.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	s := systemd(slog.New(slog.DiscardHandler))
	for want, say := range map[string]func(){
		"STATUS=asking a; trying again":                        func() { s.status("asking a; trying again") },
		"STATUS=x?READY=1??MAINPID=1":                          func() { s.status("x\nREADY=1\r\nMAINPID=1") },
		"STATUS=" + strings.Repeat("é", maxNotified/2) + "...": func() { s.status(strings.Repeat("é", 4000)) },
		"READY=1\nSTATUS=the workload runs":                    s.runs,
		"STOPPING=1\nSTATUS=stopping the workload":             s.stopping,
	} {
		say()
		b := make([]byte, 8192)
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%q (%v), expected %q", b[:n], err, want)
		}
	}
}

// TestNobodyToNotify: without systemd nothing is said, and one that is gone is a
// warning, once.
func TestNobodyToNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	var log bytes.Buffer
	s := systemd(slog.New(slog.NewTextHandler(&log, nil)))
	if s.status("x") || log.Len() != 0 {
		t.Errorf("somebody was told, or it was complained of: %s", log.String())
	}
	s.tell = func(string) (bool, error) { return false, errors.New("gone") }
	for range 3 {
		s.runs()
	}
	if strings.Count(log.String(), "gone") != 1 {
		t.Errorf("said %q", log.String())
	}
}
