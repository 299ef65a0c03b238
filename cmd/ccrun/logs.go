package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/podman"
	"github.com/ccrun/ccrun/krun/sealedlog"
)

func logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "verify and decrypt the log of a workload built with --logs encrypted", ArgsUsage: "NAME|FILE",
		Description: `NAME is a container, whose log Podman's API has; FILE a log as Podman's k8s-file
driver keeps it, what "podman logs" or "journalctl -o export" printed, or - for
standard input. The workload's stdout goes to stdout and its stderr to stderr, or
the one that --stream names to stdout; ccrun's own words go to stderr (-q: errors
only).

What was altered, forged, repeated or left out on the way is named, and makes
the exit status 1. A log whose end is missing while the container runs is none of
that. Which guests may have written it is known from the server, or from the
image's record: never from the host.

Examples:
   ccrun logs shop --identity log.key -f
   ccrun logs ctr.log --identity log.key --record shop.record --since 24h`,
		Flags: append(serverFlags(), face.FormatFlag(),
			&cli.StringFlag{Name: "identity", Required: true, Usage: "`FILE` with the private key of a --log-recipient, as age-keygen writes it"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes"},
			&cli.StringFlag{Name: "since", Usage: "only what was printed after `TIME`: RFC 3339, or a duration ago, by the guest's clock"},
			&cli.StringFlag{Name: "stream", Usage: "only `STREAM`: stdout or stderr"},
			&cli.StringFlag{Name: "record", Usage: "`FILE` with the image's record, instead of asking the server"},
			&cli.StringFlag{Name: "workload-id", Usage: "refuse the log of another workload than `ID`"},
			&cli.StringFlag{Name: "url", Usage: "`URL` of Podman's API (default: as Podman finds it, or a private service)"}),
		Action: runLogs,
	}
}

func runLogs(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "NAME|FILE"); err != nil {
		return err
	}
	v := &logView{c: c, stream: c.String("stream")}
	if v.stream != "" && v.stream != sealedlog.Stdout.String() && v.stream != sealedlog.Stderr.String() {
		return face.Usagef("--stream %q: expected stdout or stderr", v.stream)
	}
	var err error
	if v.since, err = parseSince(c.String("since"), time.Now()); err != nil {
		return err
	}
	if v.reader, err = logReader(c); err != nil {
		return err
	}
	v.attach()
	source, err := openLog(c)
	if err != nil {
		return err
	}
	defer source.close()
	out, errs := v.reader.Source(), v.reader.Source()
	err = source.copy(c.Context, podman.Streams{Out: v.watched(out), Err: v.watched(errs)})
	if c.Bool("follow") && errors.Is(err, context.Canceled) {
		err = nil // the user has seen enough
	}
	if err != nil {
		return logHint(err)
	}
	return v.finish(source)
}

// logHint adds what helps to an error of reading.
func logHint(err error) error {
	if errors.Is(err, sealedlog.ErrNotRecipient) {
		return hint.With(fmt.Errorf("reading the log: %w", err), "`ccrun inspect IMAGE` shows the image's log readers; --identity needs the private key of one")
	}
	return err
}

// parseSince is a time, or a duration before now; the zero time for "".
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return time.Time{}, face.Usagef("--since %q: expected a time as in 2026-12-01T04:00:00Z, or a duration as in 90m", s)
	}
	return now.Add(-d), nil
}

// logReader knows who may read, and whose guests may have written.
func logReader(c *cli.Context) (*sealedlog.Reader, error) {
	r := &sealedlog.Reader{}
	b, err := bounded.File(c.String("identity"), 1<<20)
	if err != nil {
		return nil, fmt.Errorf("reading --identity: %w", err)
	}
	defer clear(b)
	if r.Identities, err = age.ParseIdentities(bytes.NewReader(b)); err != nil {
		return nil, hint.With(fmt.Errorf("reading --identity %s: %w", c.String("identity"), err), "it is the file that `age-keygen -o FILE` wrote, not encrypted")
	}
	want := c.String("workload-id")
	if path := c.String("record"); path != "" {
		r.Trusted, err = recordedSigner(path)
		if err == nil && want != "" && want != r.Trusted.WorkloadID {
			err = face.Usagef("record %s is of workload %s, not %s", path, r.Trusted.WorkloadID, want)
		}
		return r, err
	}
	client, err := admin(c)
	if err != nil {
		return nil, hint.With(err, "name the image's record with --record FILE, or a server that knows the workload: `ccrun login URL` remembers one")
	}
	if want != "" { // then nothing hangs on what the log says first
		r.Trusted, err = registeredSigner(c.Context, client, want)
		return r, err
	}
	r.Trust = func(id string) (sealedlog.Trusted, error) { return registeredSigner(c.Context, client, id) }
	return r, nil
}

// recordedSigner is whom a build's record lets write the log.
func recordedSigner(path string) (t sealedlog.Trusted, err error) {
	b, err := bounded.File(path, 1<<20)
	if err != nil {
		return t, fmt.Errorf("reading --record: %w", err)
	}
	defer clear(b) // it may hold the DiskKey
	var r kbs.Record
	if err := kbs.UnmarshalStrict(b, &r); err != nil {
		return t, fmt.Errorf("reading --record %s: %w", path, err)
	}
	defer clear(r.DiskKey)
	t, err = signerOf(r.Identity, &r.Registration)
	if err != nil {
		err = fmt.Errorf("reading --record %s: %w", path, err)
	}
	return t, err
}

// registeredSigner is whom the server's registration lets write the log.
func registeredSigner(ctx context.Context, client *kbs.AdminClient, id string) (t sealedlog.Trusted, err error) {
	if !kbs.ValidWorkloadID(id) { // which a host may have made up
		return t, fmt.Errorf("the log is of a workload %q, which cannot be", face.Printable(id))
	}
	b, err := client.Bootable(ctx, id)
	if err == nil && b.Boot == nil {
		err = hint.With(errors.New("it is registered without its identity"), "name its record with --record FILE")
	}
	if err == nil {
		t, err = signerOf(b.Boot.Identity, &b.Registration)
	}
	if err != nil {
		err = fmt.Errorf("asking the server who writes the log of workload %s: %w", face.Printable(id), err)
	}
	return t, err
}

// signerOf takes the identity only as the registration measures it.
func signerOf(identity []byte, reg *kbs.Registration) (t sealedlog.Trusted, err error) {
	id, err := krun.DecodeIdentity(identity)
	if err != nil {
		return t, err
	}
	t = sealedlog.Trusted{WorkloadID: id.WorkloadID, IdentityDigest: kbs.Sum384(identity)}
	if t.IdentityDigest != reg.IdentityDigest || t.WorkloadID != reg.WorkloadID {
		return sealedlog.Trusted{}, fmt.Errorf("identity of workload %s is not the one registered for %s", id.WorkloadID, reg.WorkloadID)
	}
	if id.Logs == nil {
		return sealedlog.Trusted{}, hint.With(fmt.Errorf("the logs of workload %s are not encrypted", id.WorkloadID), "read them with `podman logs`; `ccrun build --logs encrypted` makes others")
	}
	t.Signer, err = id.Logs.Signer()
	return t, err
}

// logView shows a log as it is read.
type logView struct {
	c      *cli.Context
	reader *sealedlog.Reader
	since  time.Time
	stream string
	faults int
	failed error // of writing
}

// A logEvent is one of the JSON values that --format json prints.
type logEvent struct {
	Event  string             `json:"event"` // boot, output, note, end or fault
	Boot   string             `json:"boot,omitempty"`
	Time   *time.Time         `json:"time,omitempty"`
	Stream string             `json:"stream,omitempty"`
	Data   []byte             `json:"data,omitempty"`
	About  *sealedlog.About   `json:"about,omitempty"`
	End    *sealedlog.End     `json:"end,omitempty"`
	Fault  *sealedlog.Trouble `json:"fault,omitempty"`
}

func (v *logView) attach() {
	log := program.Log(v.c)
	v.reader.OnBoot = func(boot string, a sealedlog.About) {
		v.show(logEvent{Event: "boot", Boot: boot, About: &a}, func() {
			log.Info("a boot", "boot", boot, "workload", a.WorkloadID, "began", time.Unix(a.Began, 0).UTC(), "report_data", fmt.Sprintf("%x", a.ReportData))
		})
	}
	v.reader.OnRecord = v.record
	v.reader.OnEnd = func(boot string, e sealedlog.End) {
		v.show(logEvent{Event: "end", Boot: boot, End: &e}, func() {
			if e.Error != "" {
				log.Warn("the guest failed", "boot", boot, "status", e.Status, "error", face.Printable(e.Error))
			} else {
				log.Info("the guest ended", "boot", boot, "status", e.Status)
			}
		})
	}
	v.reader.OnTrouble = func(t sealedlog.Trouble) {
		if t.Fault == sealedlog.Missing && !v.since.IsZero() && t.Before.Before(v.since) {
			return // all of it is older still
		}
		v.faults++
		v.show(logEvent{Event: "fault", Boot: t.Boot, Fault: &t}, func() { log.Error("not as the guest wrote it: " + t.String()) })
	}
}

// show prints the event as --format says, or else as plain does.
func (v *logView) show(e logEvent, plain func()) {
	if v.failed != nil {
		return
	}
	v.failed = face.Print(v.c, e, func(io.Writer, logEvent) error { plain(); return nil })
}

func (v *logView) record(boot string, r sealedlog.Record) {
	name := r.Kind.String()
	if r.Time.Before(v.since) || v.stream != "" && name != v.stream {
		return
	}
	at := r.Time.UTC()
	if r.Kind == sealedlog.Note {
		v.show(logEvent{Event: "note", Boot: boot, Time: &at, Data: r.Data}, func() {
			program.Log(v.c).Info("the agent says", "time", at, "text", face.Printable(string(r.Data)))
		})
		return
	}
	to := v.c.App.Writer
	if r.Kind == sealedlog.Stderr && v.stream == "" {
		to = v.c.App.ErrWriter
	}
	v.show(logEvent{Event: "output", Boot: boot, Time: &at, Stream: name, Data: r.Data}, func() { _, v.failed = to.Write(r.Data) })
}

// watched ends reading when there is nobody to show it to.
func (v *logView) watched(to io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		n, err := to.Write(p)
		return n, errors.Join(err, v.failed)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// finish says what only the end of the log shows.
func (v *logView) finish(source logSource) error {
	tail := v.reader.Finish()
	log := program.Log(v.c)
	switch running, err := source.running(v.c.Context); {
	case err != nil:
		return err
	case tail.Boots == 0 && v.faults == 0 && running == stillRuns:
		log.Warn("nothing of a sealed log yet")
	case tail.Boots == 0 && v.faults == 0:
		return hint.With(errors.New("no sealed log in it"), "was the image built with --logs encrypted? `ccrun inspect IMAGE` says so")
	case tail.Ended || tail.Boots == 0:
	case running == hasEnded:
		v.reader.OnTrouble(sealedlog.Trouble{Fault: sealedlog.MissingEnd, Boot: tail.Boot, Last: max(tail.Frames, 1) - 1})
	case running == stillRuns:
		log.Info("the guest still runs")
	default:
		log.Warn("the log has no end: the guest still runs, or what it said last is missing")
	}
	if v.faults > 0 {
		return fmt.Errorf("reading the log: %d %s", v.faults, plural(v.faults, "place where it is not as the guest wrote it", "places where it is not as the guest wrote it"))
	}
	return nil
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// isLogFile says whether the argument is a file: by its form, or because it is
// there.
func isLogFile(arg string) bool {
	if arg == "-" || strings.ContainsRune(arg, os.PathSeparator) {
		return true
	}
	st, err := os.Stat(arg)
	return err == nil && st.Mode().IsRegular()
}
