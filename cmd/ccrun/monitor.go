package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
)

// maxMonitorState bounds the state file, in bytes.
const maxMonitorState = 4 << 20

func monitorCommand() *cli.Command {
	return &cli.Command{
		Name: "monitor", Usage: "count a workload's releases in the audit log, and check that log", ArgsUsage: "ID",
		Description: `Reads the server's audit log from where the last run ended, checks every entry,
the Merkle tree over them and the signatures of the log and its witnesses on its
head, and prints one line of JSON. Exits 1 if the disk key was released more often
than expected, or if the log is not what it was. Give it an auditor's token of the
operator, and run it on a machine that the server's administrators do not have. A
first run on a log that was archived needs the archives, --archive.

Example:
   ccrun monitor shop --expect 2/24h --log-key "$(cat log.key)" --state shop.state --server https://kbs.example:8443 --token-file auditor.token`,
		Flags: append(serverFlags(),
			&cli.StringFlag{Name: "expect", Required: true, Usage: "`N/PERIOD`: at most N releases within PERIOD, e.g. 2/24h"},
			&cli.StringSliceFlag{Name: "log-key", Required: true, Usage: "`KEY` of the log, as \"attest-server audit key\" prints it (repeatable)"},
			&cli.StringSliceFlag{Name: "witness-key", Usage: "`KEY` of a witness that must have signed (repeatable)"},
			&cli.StringSliceFlag{Name: "archive", Usage: "`FILE` of \"attest-server audit archive\", for entries that the server has no more (repeatable)"},
			&cli.StringFlag{Name: "state", Required: true, Usage: "`FILE` that remembers what was seen; made if it is not there"}),
		Action: runMonitor,
	}
}

// monitorResult is the line that monitor prints.
type monitorResult struct {
	Workload   string    `json:"workload"`
	Releases   int       `json:"releases"` // since Since
	Expected   int       `json:"expected"` // at most
	Since      time.Time `json:"since"`
	OK         bool      `json:"ok"`
	Origin     string    `json:"origin"`
	Size       int64     `json:"size"` // entries checked
	Root       string    `json:"root"`
	Witnesses  []string  `json:"witnesses"` // that have signed
	Checkpoint string    `json:"checkpoint"`
}

func runMonitor(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "ID"); err != nil {
		return err
	}
	id := c.Args().First()
	if !kbs.ValidWorkloadID(id) {
		return face.Usagef("workload %q, expected its id", id)
	}
	expected, period, err := parseExpect(c.String("expect"))
	if err != nil {
		return err
	}
	keys, err := parseMonitorKeys(c.StringSlice("log-key"), c.StringSlice("witness-key"))
	if err != nil {
		return err
	}
	seen, err := readSeen(c.String("state"), id)
	if err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	source, err := withArchives(client, c.StringSlice("archive"))
	if err != nil {
		return err
	}
	defer source.close()
	m, err := seen.follow(c.Context, source, keys)
	if err != nil {
		return fmt.Errorf("monitoring workload %s: %w", id, err)
	}
	since := time.Now().Add(-period).UTC().Truncate(time.Second)
	n := m.seen.since(since)
	if err := writeSeen(c.String("state"), m.seen); err != nil {
		return err
	}
	err = json.NewEncoder(c.App.Writer).Encode(monitorResult{
		Workload: id, Releases: n, Expected: expected, Since: since, OK: n <= expected,
		Origin: m.checkpoint.Origin, Size: m.checkpoint.Size, Root: m.checkpoint.Root.String(),
		Witnesses: append([]string{}, m.checkpoint.Cosigned...), Checkpoint: string(m.checkpoint.Note),
	})
	if err == nil && n > expected {
		return face.Silent(face.Failed)
	}
	return err
}

// parseExpect reads N/PERIOD.
func parseExpect(s string) (n int, period time.Duration, err error) {
	count, text, ok := strings.Cut(s, "/")
	if n, err = strconv.Atoi(count); err == nil {
		period, err = time.ParseDuration(text)
	}
	if !ok || err != nil || n < 0 || period <= 0 {
		return 0, 0, face.Usagef("--expect %q, expected N/PERIOD, e.g. 2/24h", s)
	}
	return n, period, nil
}

func parseMonitorKeys(log, witnesses []string) (keys monitorKeys, err error) {
	for _, s := range log {
		k, err := checkpoint.ParseLogKey(strings.TrimSpace(s))
		if err != nil {
			return keys, face.Usagef("--log-key: %w", err)
		}
		keys.log = append(keys.log, k)
	}
	for _, s := range witnesses {
		k, err := checkpoint.ParseWitnessKey(strings.TrimSpace(s))
		if err != nil {
			return keys, face.Usagef("--witness-key: %w", err)
		}
		keys.witnesses = append(keys.witnesses, k)
	}
	return keys, nil
}

// readSeen is the state in the file path, which must be of that workload; a
// beginning, if there is none.
func readSeen(path, workload string) (seen seenLog, err error) {
	b, err := bounded.File(path, maxMonitorState)
	if errors.Is(err, fs.ErrNotExist) {
		return seenLog{Workload: workload}, nil
	}
	if err == nil {
		err = kbs.UnmarshalStrict(b, &seen)
	}
	if err == nil && seen.Workload != workload {
		err = face.Usagef("it is of workload %q, and this is %q", seen.Workload, workload)
	}
	if err != nil {
		return seen, fmt.Errorf("reading --state %s: %w", path, err)
	}
	return seen, nil
}

// writeSeen replaces the file whole.
func writeSeen(path string, seen seenLog) error {
	b, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".monitor-*")
	if err != nil {
		return fmt.Errorf("writing --state: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing --state: %w", err), os.Remove(f.Name()))
	}
	return nil
}
