package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// maxLogLine is where libkrun cuts a line of hvc0 that goes to the log.
const maxLogLine = 512

// run starts the guest and copies its streams until it ends. The guest's end
// is never an error: libkrun leaves with FC_EXIT_CODE_OK.
func (m *machine) run() error {
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("starting QEMU: %w", err)
	}
	for _, f := range m.cmd.ExtraFiles {
		f.Close()
	}
	m.input()
	if p := m.ports[reportPort]; m.report != nil && p != nil {
		go m.report(p)
	}
	var out sync.WaitGroup
	copyTo := func(w io.Writer, f *os.File) {
		if f != nil {
			out.Go(func() { _, _ = io.Copy(w, f) })
		}
	}
	if isTerminal(1) {
		copyTo(os.Stdout, m.hvc0)
	} else {
		copyTo(&logWriter{w: os.Stderr, now: time.Now}, m.hvc0)
	}
	copyTo(os.Stdout, m.ports[stdoutPort])
	copyTo(os.Stderr, m.ports[stderrPort])
	_ = m.cmd.Wait()
	out.Wait()
	return nil
}

// input gives the guest what libkrun gives it: the terminal on hvc0, or the
// stream on its port and a byte 0x03 on hvc0 for each SIGINT.
func (m *machine) input() {
	if isTerminal(0) {
		go func() { _, _ = io.Copy(m.hvc0, os.Stdin) }()
		return
	}
	interrupts := make(chan os.Signal, 16)
	signal.Notify(interrupts, syscall.SIGINT)
	go func() {
		for range interrupts {
			_, _ = m.hvc0.Write([]byte{3})
		}
	}()
	if p := m.ports[stdinPort]; p != nil {
		go func() { _, _ = io.Copy(p, os.Stdin) }()
	}
}

// logWriter writes lines as libkrun's log does.
type logWriter struct {
	w    io.Writer
	now  func() time.Time
	line bytes.Buffer
}

func (l *logWriter) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\n' {
			l.line.WriteByte(c)
		}
		if c == '\n' || l.line.Len() >= maxLogLine {
			fmt.Fprintf(l.w, "[%s ERROR init_or_kernel] %s\n", l.now().UTC().Format("2006-01-02T15:04:05.000000Z"), l.line.Bytes())
			l.line.Reset()
		}
	}
	return len(p), nil
}
