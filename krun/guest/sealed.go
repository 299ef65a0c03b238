package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/sealedlog"
	"github.com/ccrun/ccrun/secret"
)

// endPatience is how long the end of a sealed log waits for a host that does not
// read it.
const endPatience = 5 * time.Second

// newLogKey draws the key of a boot's log, for its readers; seed is the subkey of
// the volume key that signs it.
func newLogKey(about sealedlog.About, readers *krun.SealedLogs, seed secret.Bytes) (*keptLog, error) {
	signing, err := sealedlog.SigningKey(seed)
	if err != nil {
		return nil, err
	}
	defer clear(signing)
	recipients, err := sealedlog.ParseRecipients(readers.Recipients)
	if err != nil {
		return nil, err
	}
	made, err := sealedlog.NewBoot(about, recipients, signing)
	if err != nil {
		return nil, err
	}
	return &keptLog{Key: made.Key.Reveal(), Line: made.Line}, nil
}

// keptLog is what PID 1 writes a sealed log with.
type keptLog struct {
	Key  []byte
	Line []byte
}

// sealed is the log of a boot whose output the host must not read. The nil
// sealed takes notes and an end, and does nothing with them.
type sealed struct {
	w      *sealedlog.Writer
	port   *os.File     // nil: the console
	passed atomic.Int64 // bytes that the host took
}

// openSealed begins the sealed log, on the port of the workload's stdout or, on a
// machine without, on the console. Both streams go there: what the guest wrote
// in one order must not come out in another.
func openSealed(policy string, k *keptLog, c *console, spawn guard) (*sealed, error) {
	if policy != krun.LogsEncrypted {
		return nil, nil
	}
	if k == nil {
		return nil, errors.New("the keeper made no key for the log")
	}
	s := &sealed{}
	to := io.Writer(c)
	path, err := findPort(portsClass, krun.StdoutPort)
	switch {
	case errors.Is(err, errNoPort):
	case err != nil:
		return nil, err
	default:
		if s.port, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
			return nil, fmt.Errorf("opening %s: %w", krun.StdoutPort, err)
		}
		to = s.port
	}
	s.w, err = sealedlog.NewWriter(&sealedlog.Boot{Key: secret.New(k.Key), Line: k.Line}, &countingWriter{to, &s.passed}, time.Now)
	clear(k.Key)
	if err != nil {
		return nil, err
	}
	spawn("flushing the log", func() {
		for range s.w.Dirty() {
			time.Sleep(sealedlog.FlushAfter)
			_ = s.w.Flush()
		}
	})
	s.note("the log begins, the disk is open")
	return s, nil
}

// note says something that only the log's recipients are to read.
func (s *sealed) note(text string) {
	if s != nil {
		_ = s.w.Note(text)
	}
}

// end writes the guest's last word, if the host reads it.
func (s *sealed) end(status int, detail string) {
	if s == nil {
		return
	}
	within(endPatience, func() { _ = s.w.Close(sealedlog.End{Status: status & 0xff, Error: detail}) }, func() {})
}
