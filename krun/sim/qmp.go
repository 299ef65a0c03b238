package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// qmpTimeout bounds all that is asked of QEMU.
const qmpTimeout = 30 * time.Second

// forwardPorts has a running QEMU listen on the ports, in the container's network,
// so that podman's own -p and --network host find the workload there. A port
// that cannot be had, because somebody else listens there, is a warning: given
// on QEMU's command line it would be the end of the machine.
func forwardPorts(monitor *os.File, to guestNet, ports []Port, log *slog.Logger) {
	defer monitor.Close()
	if len(ports) == 0 || !to.guest.IsValid() {
		return
	}
	_ = monitor.SetDeadline(time.Now().Add(qmpTimeout))
	q := &qmp{json.NewDecoder(monitor), monitor}
	err := q.hello()
	for _, p := range ports {
		if err == nil {
			err = q.forward(p, to)
		}
		if err != nil {
			log.Warn("port is not forwarded", "port", p, "reason", err)
		}
		if _, taken := errors.AsType[refusedPort](err); taken {
			err = nil // the next may be free
		}
	}
}

// refusedPort is what QEMU says of a port that it cannot have.
type refusedPort string

func (e refusedPort) Error() string { return string(e) }

// qmp speaks QEMU's monitor protocol (docs/interop/qmp-spec).
type qmp struct {
	in  *json.Decoder
	out io.Writer
}

func (q *qmp) hello() error {
	var greeting json.RawMessage
	if err := q.in.Decode(&greeting); err != nil {
		return fmt.Errorf("reading QEMU's greeting: %w", err)
	}
	_, err := q.execute("qmp_capabilities", nil)
	return err
}

// forward succeeds silently: what the human's command prints is an error.
func (q *qmp) forward(p Port, to guestNet) error {
	line := fmt.Sprintf("hostfwd_add net %s::%d-%s:%d", p.Protocol, p.Number, to.guest, p.Number)
	said, err := q.execute("human-monitor-command", map[string]string{"command-line": line})
	if err != nil {
		return err
	}
	if said = strings.TrimSpace(said); said != "" {
		return refusedPort(said)
	}
	return nil
}

func (q *qmp) execute(command string, arguments any) (said string, err error) {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return "", err
	}
	if _, err := q.out.Write(b); err != nil {
		return "", fmt.Errorf("asking QEMU: %w", err)
	}
	for {
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		switch err := q.in.Decode(&answer); {
		case err != nil:
			return "", fmt.Errorf("asking QEMU: %w", err)
		case answer.Error != nil:
			return "", fmt.Errorf("QEMU refuses %s: %s", command, answer.Error.Desc)
		case answer.Return != nil:
			_ = json.Unmarshal(answer.Return, &said) // an object where nothing is said
			return said, nil
		}
		// an event: not asked for
	}
}
