package podman

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"syscall"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// errNoStatus is the end of a guest under libkrun that printed no StatusLine.
var errNoStatus = hint.With(errors.New("the guest ended without reporting an exit status"),
	"its last words are above; `podman logs` has them, too, if the container was kept")

// simulated says whether the runtime is krun-sim, which carries a guest's
// status and every signal. libkrun carries neither: see docs/podman-differences.md.
func (s *Service) simulated() bool { return isSimulator(s.RuntimePath) }

func isSimulator(runtime string) bool { return filepath.Base(runtime) == "krun-sim" }

// statusOf is the workload's exit status: what Podman was told, or what the
// agent said last, where libkrun reports 0 whatever happened in the VM.
func (s *Service) statusOf(code int, said *statusWatch) (int, error) {
	switch {
	case s.simulated() || code != 0:
		return code, nil
	case said.seen:
		return said.status, nil
	}
	return 0, errNoStatus
}

// signalFor is what to send so that the workload gets sig, or 0 if libkrun has
// no way to pass it on: it takes SIGINT alone, which the agent makes the
// image's StopSignal.
func (s *Service) signalFor(sig syscall.Signal) syscall.Signal {
	switch {
	case s.simulated():
		return sig
	case sig == syscall.SIGTERM || sig == syscall.SIGINT:
		return syscall.SIGINT
	}
	return 0
}

// maxStatusLine bounds what is kept of a line. A StatusLine is shorter, and of
// what else the agent says the beginning will do.
const maxStatusLine = 1024

// statusWatch passes a stream on and keeps the last StatusLine in it. The
// workload could print one, too, and so deceive only whoever runs it: the
// agent's comes last. says and runs, if set, are told of the agent's other lines
// and of the workload's start.
type statusWatch struct {
	to     io.Writer
	line   []byte
	status int
	seen   bool
	says   func(string)
	runs   func()
}

func (w *statusWatch) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		if room := maxStatusLine - len(w.line); room > 0 {
			w.line = append(w.line, line[:min(len(line), room)]...)
		}
		if ended {
			w.heard(string(w.line))
			w.line = w.line[:0]
		}
		rest = after
	}
	return w.to.Write(p)
}

func (w *statusWatch) heard(line string) {
	if status, ok := krun.ParseStatusLine(line); ok {
		w.status, w.seen = status, true
	}
	if w.runs != nil && krun.IsStartedLine(line) {
		w.runs()
		w.runs, w.says = nil, nil // what looks like the agent's may be the workload's now
	}
	if text, ok := krun.ParseAgentLine(line); ok && w.says != nil {
		w.says(text)
	}
}
