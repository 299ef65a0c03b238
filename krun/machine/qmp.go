package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// qmpTimeout bounds all that is asked of QEMU.
const qmpTimeout = 30 * time.Second

// attend speaks with a running QEMU until its end, and then gives what it told
// last of the machine. up is closed once the guest's agent has opened its port.
func attend(monitor *os.File, net guestNet, ports []Port, log *slog.Logger) (events <-chan string, up <-chan struct{}) {
	last, opened := make(chan string, 1), make(chan struct{})
	go func() {
		defer monitor.Close()
		q := &qmp{monitor: monitor, in: json.NewDecoder(monitor), opened: sync.OnceFunc(func() { close(opened) })}
		q.forwardPorts(net, ports, log)
		last <- q.watch()
	}()
	return last, opened
}

// forwardPorts has QEMU listen on the ports, in the container's network,
// so that podman's own -p and --network host find the workload there. A port
// that cannot be had, because somebody else listens there, is a warning: given
// on QEMU's command line it would be the end of the machine.
func (q *qmp) forwardPorts(to guestNet, ports []Port, log *slog.Logger) {
	if !to.guest.IsValid() {
		ports = nil
	}
	_ = q.monitor.SetDeadline(time.Now().Add(qmpTimeout))
	defer func() { _ = q.monitor.SetDeadline(time.Time{}) }()
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

// keptEvents is how many of the last events are told.
const keptEvents = 3

// watch reads to the monitor's end and returns the last events.
func (q *qmp) watch() string {
	for {
		var a answer
		if q.in.Decode(&a) != nil {
			return strings.Join(q.events, ", ")
		}
		q.note(a)
	}
}

// note keeps a, if it is an event: for the end, SHUTDOWN and why.
func (q *qmp) note(a answer) {
	switch {
	case a.Event == "":
		return
	case a.Event == "VSERPORT_CHANGE":
		if a.Data.ID == portPrefix+controlID && a.Data.Open && q.opened != nil {
			q.opened()
		}
		return
	}
	q.events = append(q.events, strings.TrimSpace(a.Event+" "+a.Data.Reason))
	q.events = q.events[max(0, len(q.events)-keptEvents):]
}

// refusedPort is what QEMU says of a port that it cannot have.
type refusedPort string

func (e refusedPort) Error() string { return string(e) }

// qmp speaks QEMU's monitor protocol (docs/interop/qmp-spec).
type qmp struct {
	monitor *os.File
	in      *json.Decoder
	events  []string // the last of them
	opened  func()   // the agent's port is
}

// answer is what QEMU says: to a command, or an event on its own.
type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Reason string `json:"reason"`
		ID     string `json:"id"`   // of VSERPORT_CHANGE
		Open   bool   `json:"open"` // likewise
	} `json:"data"`
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
	if _, err := q.monitor.Write(b); err != nil {
		return "", fmt.Errorf("asking QEMU: %w", err)
	}
	for {
		var a answer
		switch err := q.in.Decode(&a); {
		case err != nil:
			return "", fmt.Errorf("asking QEMU: %w", err)
		case a.Error != nil:
			return "", fmt.Errorf("QEMU refuses %s: %s", command, a.Error.Desc)
		case a.Return != nil:
			_ = json.Unmarshal(a.Return, &said) // an object where nothing is said
			return said, nil
		}
		q.note(a)
	}
}
