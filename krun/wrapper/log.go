package wrapper

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// report writes err to stderr and to the log that crun would write to, in its
// format (src/libcrun/error.c), because Podman shows what it finds there.
func (w *Wrapper) report(c command, err error) {
	msg := message(err)
	fmt.Fprintln(w.Stderr, msg)
	path, ok := strings.CutPrefix(c.log, "file:")
	if !ok && strings.Contains(strings.SplitN(c.log, "/", 2)[0], ":") || path == "" {
		return // journald:, syslog: or none: stderr has it
	}
	line := w.Now().UTC().Format("2006-01-02T15:04:05.000000000Z") + ": " + msg
	if c.json {
		b, err := json.Marshal(struct {
			Msg   string `json:"msg"`
			Level string `json:"level"`
			Time  string `json:"time"`
		}{msg, "error", w.Now().UTC().Format("2006-01-02T15:04:05.000000000Z")})
		if err != nil {
			return
		}
		line = string(b)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		fmt.Fprintf(w.Stderr, "ccrun: opening log: %v\n", err)
		return
	}
	_, err = f.WriteString(line + "\n")
	if err2 := f.Close(); err != nil || err2 != nil {
		fmt.Fprintf(w.Stderr, "ccrun: writing log: %v\n", firstOf(err, err2))
	}
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
