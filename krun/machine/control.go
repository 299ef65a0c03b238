package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// The control port's protocol, lines of ASCII. Guest to VMM: "ready" when the
// workload runs and signals make sense, "exit N" with its exit status. VMM to
// guest: "signal N". Everything the guest says is checked: in the real thing
// host and guest do not trust each other.

// portPrefix is before a port's name in its device's id.
const (
	portPrefix = "port-"
	controlID  = "control"
)

const maxControlLine = 64

// errControl reports a line that is not part of the protocol.
var errControl = errors.New("not a control message")

// message is one line from the guest.
type message struct {
	ready bool
	exit  int // meaningful unless ready
}

func parseMessage(line string) (message, error) {
	if line == "ready" {
		return message{ready: true}, nil
	}
	number, ok := strings.CutPrefix(line, "exit ")
	n, err := strconv.ParseUint(number, 10, 8)
	if !ok || err != nil || strconv.FormatUint(n, 10) != number {
		return message{}, fmt.Errorf("%w: %q", errControl, line)
	}
	return message{exit: int(n)}, nil
}

// readControl sends every message on port to out, until the port ends (nil)
// or the guest breaks the protocol.
func readControl(port io.Reader, out func(message)) error {
	r := bufio.NewReaderSize(port, maxControlLine)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded):
			return nil // a line without its end does not count
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("%w: line of more than %d bytes", errControl, maxControlLine)
		case err != nil:
			return fmt.Errorf("reading control port: %w", err)
		}
		m, err := parseMessage(string(line[:len(line)-1]))
		if err != nil {
			return err
		}
		out(m)
	}
}

func signalLine(number int) string { return fmt.Sprintf("signal %d\n", number) }
