package crun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Report writes msg to stderr and to the log that crun would write to, in its
// format (src/libcrun/error.c), because Podman shows what it finds there.
func (c Command) Report(stderr io.Writer, now time.Time, msg string) {
	fmt.Fprintln(stderr, msg)
	path, ok := strings.CutPrefix(c.Log, "file:")
	if !ok && strings.Contains(strings.SplitN(c.Log, "/", 2)[0], ":") || path == "" {
		return // journald:, syslog: or none: stderr has it
	}
	at := now.UTC().Format("2006-01-02T15:04:05.000000000Z")
	line := at + ": " + msg
	if c.JSON {
		b, err := json.Marshal(struct {
			Msg   string `json:"msg"`
			Level string `json:"level"`
			Time  string `json:"time"`
		}{msg, "error", at})
		if err != nil {
			return
		}
		line = string(b)
	}
	if err := appendLine(path, line); err != nil {
		fmt.Fprintf(stderr, "ccrun: writing log: %v\n", err)
	}
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}
