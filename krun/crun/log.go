package crun

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"
)

// WriteLog writes msg where crun would write an error, in crun's format
// (src/libcrun/error.c): Podman shows what it finds there. Where that is no
// file, it writes nothing.
func (c Command) WriteLog(now time.Time, msg string) error {
	path, ok := strings.CutPrefix(c.Log, "file:")
	if !ok && strings.Contains(strings.SplitN(c.Log, "/", 2)[0], ":") || path == "" {
		return nil // journald:, syslog: or none
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
			return err
		}
		line = string(b)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}
