package guest

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ccrun/ccrun/krun"
)

// output carries the workload's stdout and stderr to the host. Pipes, not the
// devices themselves: what the host types must not become the workload's
// input, and no program should take the host for a terminal.
type output struct {
	stdout, stderr *os.File
	ports          []*os.File
	done           chan struct{}
	copies         int
	spawn          guard
}

// openOutput gives each stream its port. On a machine without both ports the
// streams share the console, and one pipe, so that their order is kept.
func (b *boot) openOutput() (*output, error) {
	o := &output{done: make(chan struct{}, 2), spawn: b.spawn}
	if b.identity.Policy.Logs == "none" {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		o.stdout, o.stderr = null, null
		return o, err
	}
	err := o.openPorts()
	if errors.Is(err, errNoPort) {
		o.stdout, err = o.pipeTo(b.console)
		o.stderr = o.stdout
		return o, err
	}
	if err != nil {
		return nil, err
	}
	if o.stdout, err = o.pipeTo(o.ports[0]); err != nil {
		return nil, err
	}
	o.stderr, err = o.pipeTo(o.ports[1])
	return o, err
}

func (o *output) openPorts() error {
	for _, name := range []string{krun.StdoutPort, krun.StderrPort} {
		path, err := findPort(portsClass, name)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", name, err)
		}
		o.ports = append(o.ports, f)
	}
	return nil
}

// pipeTo copies until every holder of the writing end is gone, which the end
// of the workload's PID namespace guarantees.
func (o *output) pipeTo(to io.Writer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.copies++
	o.spawn("passing the workload's output on", func() {
		_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{r})
		_ = r.Close()
		o.done <- struct{}{}
	})
	return w, nil
}

// closeWriters leaves the workload the only holder of its streams. Closing a
// shared file twice is an error without a consequence.
func (o *output) closeWriters() { _ = errors.Join(o.stdout.Close(), o.stderr.Close()) }

// wait returns when the host has been given everything.
func (o *output) wait() {
	for range o.copies {
		<-o.done
	}
	for _, p := range o.ports {
		_ = p.Close()
	}
}
