package guest

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/sealedlog"
	"github.com/ccrun/ccrun/secret"
)

// sealedBoot is a boot with a sealed log on its console, and how to read that.
func sealedBoot(t *testing.T) (b *boot, out *bytes.Buffer, reader *sealedlog.Reader) {
	t.Helper()
	b, out = testBoot()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	signing, err := sealedlog.SigningKey(secret.New(bytes.Repeat([]byte{1}, 48)))
	if err != nil {
		t.Fatal(err)
	}
	about := sealedlog.About{WorkloadID: "w", IdentityDigest: kbs.Sum384([]byte("i"))}
	made, err := sealedlog.NewBoot(about, []age.Recipient{id.Recipient()}, signing)
	if err != nil {
		t.Fatal(err)
	}
	b.identity = &krun.Identity{Policy: krun.LaunchPolicy{Logs: krun.LogsEncrypted}}
	b.logKey = &keptLog{Key: made.Key.Reveal(), Line: made.Line}
	return b, out, &sealedlog.Reader{
		Trusted:    sealedlog.Trusted{WorkloadID: "w", IdentityDigest: about.IdentityDigest, Signer: signing.Public().(ed25519.PublicKey)},
		Identities: []age.Identity{id},
	}
}

// readSealed is what the owner reads in text.
func readSealed(t *testing.T, r *sealedlog.Reader, text string) (out, errs string, end *sealedlog.End) {
	t.Helper()
	r.OnRecord = func(_ string, rec sealedlog.Record) {
		switch rec.Kind {
		case sealedlog.Stdout:
			out += string(rec.Data)
		case sealedlog.Stderr:
			errs += string(rec.Data)
		}
	}
	r.OnEnd = func(_ string, e sealedlog.End) { end = &e }
	r.OnTrouble = func(x sealedlog.Trouble) { t.Errorf("the log is not whole: %s", x) }
	if _, err := r.Source().Write([]byte(text)); err != nil {
		t.Error(err)
	}
	r.Finish()
	return out, errs, end
}

// TestSealedOutput: the host's console has neither stream, nor what went wrong.
func TestSealedOutput(t *testing.T) {
	b, out, reader := sealedBoot(t)
	if err := b.openLog(b.logKey); err != nil {
		t.Fatal(err)
	}
	o, err := b.openOutput()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = o.stdout.WriteString("said " + word)
	_, _ = o.stderr.WriteString("wrong " + word)
	o.closeWriters()
	o.wait()
	b.mapped = "/dev/dm-2"
	status := b.failed(b.forHost(t.Context(), classed(classNotFound, errors.New("no "+word))))
	b.log.end(status, b.detail)
	if strings.Contains(out.String(), word) {
		t.Errorf("the host reads %q", out.String())
	}
	stdout, stderr, end := readSealed(t, reader, out.String())
	if stdout != "said "+word || stderr != "wrong "+word || end == nil || end.Status != statusBootFailed || !strings.Contains(end.Error, "no "+word) {
		t.Errorf("the owner reads %q, %q, %+v", stdout, stderr, end)
	}
}

// TestSealedIsNeverPlain: what is to be sealed and cannot be goes nowhere.
func TestSealedIsNeverPlain(t *testing.T) {
	b, _, _ := sealedBoot(t)
	if err := b.openLog(nil); err == nil {
		t.Error("a log without a key was opened")
	}
	if _, err := b.openOutput(); err == nil {
		t.Error("output that is to be sealed was opened without a log")
	}
	for _, policy := range []string{"", "Encrypted", "host "} {
		b.identity.Policy.Logs = policy
		if _, err := b.openOutput(); err == nil {
			t.Errorf("output with the logs policy %q was opened", policy)
		}
	}
	b.identity.Policy.Logs = krun.LogsHost
	if err := b.openLog(b.logKey); err != nil || b.log != nil {
		t.Errorf("a log that is not to be sealed: %v", err)
	}
	b.log.note("nobody reads this")
	b.log.end(0, "")
}

// TestSealedFlushes: what a workload says is with the host soon, also if it says
// no more.
func TestSealedFlushes(t *testing.T) {
	b, _, reader := sealedBoot(t)
	lines := make(chan string, 16)
	b.console.w = chanWriter(lines)
	if err := b.openLog(b.logKey); err != nil {
		t.Fatal(err)
	}
	o, err := b.openOutput()
	if err != nil {
		t.Fatal(err)
	}
	defer o.closeWriters()
	_, _ = o.stdout.WriteString("hello")
	text, late := "", time.After(30*time.Second)
	for {
		select {
		case l := <-lines:
			text += l
		case <-late:
			t.Fatal("nothing comes")
		}
		fresh := *reader
		if out, _, _ := readSealed(t, &fresh, text); out == "hello" {
			return
		}
	}
}

type chanWriter chan<- string

func (c chanWriter) Write(p []byte) (int, error) { c <- string(p); return len(p), nil }

// TestSealedOnADeafHost: neither the end nor a signal's note waits for a host
// that does not read.
func TestSealedOnADeafHost(t *testing.T) {
	b := deafHost(t)
	sealed, _, _ := sealedBoot(t)
	b.identity = sealed.identity
	if err := b.openLog(sealed.logKey); err != nil {
		t.Fatal(err)
	}
	o, err := b.openOutput()
	if err != nil {
		t.Fatal(err)
	}
	o.patience = 10 * time.Millisecond
	_, _ = o.stdout.WriteString(strings.Repeat("the last words", 2000))
	o.closeWriters()
	o.wait()
	done := make(chan struct{})
	go func() { b.log.end(0, ""); close(done) }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Error("the end waits for a host that does not read")
	}
}

// TestKeeperTellsDetails: what went wrong with the opened disk reaches the sealed
// log, by way of PID 1, and no other.
func TestKeeperTellsDetails(t *testing.T) {
	err := (&boot{opened: opened{mapped: "/dev/dm-2"}}).forHost(t.Context(), errors.New("no "+word))
	for _, c := range []struct {
		log    *keptLog
		detail string
	}{{nil, ""}, {&keptLog{Key: []byte("k")}, "no " + word}} {
		told := keeperSays(t, func(a *keeperAnswer) { a.fail(err, c.log) })
		if told.Failure == nil || told.Failure.Detail != c.detail || strings.Contains(told.Failure.Text+told.Failure.Hint, word) {
			t.Errorf("told %+v, expected the detail %q", told.Failure, c.detail)
		}
	}
}

// TestMakeLogKey: a guest without the VolumeKey's subkey makes no key, nor one
// for nobody.
func TestMakeLogKey(t *testing.T) {
	b, _ := testBoot()
	b.identity = &krun.Identity{}
	if err := b.makeLogKey(t.Context()); err != nil || b.logKey != nil {
		t.Errorf("a log that is not to be sealed: %v", err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	seed, readers := secret.New(bytes.Repeat([]byte{1}, 48)), &krun.SealedLogs{Recipients: []string{id.Recipient().String()}}
	for _, c := range []struct {
		readers *krun.SealedLogs
		seed    secret.Bytes
		ok      bool
	}{{readers, seed, true}, {readers, secret.Bytes{}, false}, {&krun.SealedLogs{}, seed, false}} {
		if k, err := newLogKey(sealedlog.About{WorkloadID: "w", IdentityDigest: kbs.Digest{1}}, c.readers, c.seed); (err == nil) != c.ok || (k != nil) != c.ok {
			t.Errorf("%+v: %v", c.readers, err)
		}
	}
}
