package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/podman"
	"github.com/ccrun/ccrun/luks"
)

// TestLogForms: what log drivers and their tools make of two streams is taken
// apart again, pieces of one line put together.
func TestLogForms(t *testing.T) {
	export := func(priority, message string) string {
		return fmt.Sprintf("__CURSOR=s=1\nPRIORITY=%s\nMESSAGE=%s\n_PID=1\n\n", priority, message)
	}
	binaryField := "__CURSOR=s=2\nMESSAGE\n" + string(binary.LittleEndian.AppendUint64(nil, 3)) + "a\nb\nPRIORITY=6\n\n"
	long := strings.Repeat("x", 200_000)
	for name, c := range map[string]struct{ text, out, err string }{
		"plain": {"one\ntwo", "one\ntwo", ""},
		"empty": {"", "", ""},
		"k8s-file": {"2026-12-01T04:45:12.123456789+00:00 stdout F one\n2026-12-01T04:45:12.123456789Z stderr P wr\n" +
			"2026-12-01T04:45:12.123456789+00:00 stdout P tw\n2026-12-01T04:45:12.123456789+02:00 stdout F o\n2026-12-01T04:45:12.1+00:00 stderr F ong\n",
			"one\ntw\no\n", "wr\nong\n"},
		"k8s-file, long":  {"2026-12-01T04:45:12.1+00:00 stderr F " + long + "\n", "", long + "\n"},
		"journal":         {export("6", "one") + export("3", "wrong") + export("6", "two"), "onetwo", "wrong"},
		"journal, binary": {export("6", "one") + binaryField, "onea\nb", ""},
		"journal, cut":    {export("6", "one") + "__CURSOR=x\nMESSAGE=tw", "onetw", ""},
	} {
		var out, errs bytes.Buffer
		if err := copyLogText(strings.NewReader(c.text), podman.Streams{Out: &out, Err: &errs}); err != nil || out.String() != c.out || errs.String() != c.err {
			t.Errorf("%s: %.200q and %.200q, %v", name, out.String(), errs.String(), err)
		}
	}
	for name, text := range map[string]string{
		"huge field":  "__CURSOR=x\nMESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff",
		"huge line":   "__CURSOR=x\nMESSAGE=" + strings.Repeat("x", maxJournalField) + "\n",
		"cut lengths": "__CURSOR=x\nMESSAGE\n\x01\x00",
	} {
		if err := copyLogText(strings.NewReader(text), podman.Streams{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzLogForms(f *testing.F) {
	f.Add("2026-12-01T04:45:12.123456789+00:00 stdout F one\n")
	f.Add("__CURSOR=x\nMESSAGE\n\x01\x00\x00\x00\x00\x00\x00\x00a\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		var out, errs bytes.Buffer
		_ = copyLogText(strings.NewReader(text), podman.Streams{Out: &out, Err: &errs})
		if out.Len()+errs.Len() > len(text) {
			t.Errorf("%d bytes became %d", len(text), out.Len()+errs.Len())
		}
	})
}

// TestGrowingLog: -f goes on with a file that grows, is cut, or is replaced.
func TestGrowingLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	put := func(text string, flags int) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flags, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
		}
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	put("first ", 0)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	g := &growing{ctx: t.Context(), f: f, path: path}
	defer g.Close()
	next := func(want string) {
		t.Helper()
		b := make([]byte, 64)
		if n, err := g.Read(b); err != nil || string(b[:n]) != want {
			t.Fatalf("read %q, %v; expected %q", b[:n], err, want)
		}
	}
	next("first ")
	put("second, and long enough", os.O_APPEND)
	next("second, and long enough")
	put("cut", os.O_TRUNC)
	next("cut")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	put("another", os.O_EXCL)
	next("another")

	// What is written between reading to the end and the new file is not lost.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	put("the last", os.O_EXCL)
	if err := g.rotate(); err != nil || g.next == nil {
		t.Fatalf("rotated: %v", err)
	}
	old, err := os.OpenFile(path+".2", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.WriteString(" word"); err != nil || old.Close() != nil {
		t.Fatal(err)
	}
	next(" word")
	next("the last")
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 12, 1, 5, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{"": {}, "90m": now.Add(-90 * time.Minute), "2026-12-01T04:00:00Z": now.Add(-time.Hour)} {
		if got, err := parseSince(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"yesterday", "-5m", "2026-12-01"} {
		if _, err := parseSince(s, now); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

// TestLogSigner: who writes a log is taken from an identity only as it is
// registered.
func TestLogSigner(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	g, err := luks.NewGeometry("8392b074-a42c-4b49-9b3e-8cfb0429ff8c", 1<<20, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(logs string) []byte {
		i := krun.Identity{
			Version: krun.IdentityVersion, WorkloadID: "w1", TEE: kbs.SNP,
			Servers: krun.Servers{URLs: []string{"https://a.example:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
			Disk:    krun.DiskIdentity{Geometry: g, VolumeKeyDigest: kbs.Sum384([]byte("k")), Filesystem: "btrfs", ImageBytes: g.TotalBytes() + krun.FooterAlign},
			Scratch: krun.Scratch{Kind: krun.ScratchNone}, Policy: krun.LaunchPolicy{Logs: logs}, ProcessDigest: kbs.Sum384([]byte("p")),
		}
		if logs == krun.LogsEncrypted {
			i.Logs = &krun.SealedLogs{Recipients: []string{id.Recipient().String()}, SigningKey: strings.Repeat("ab", 32)}
		}
		b, err := i.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := encode(krun.LogsEncrypted)
	reg := func(workload string, b []byte) *kbs.Registration {
		return &kbs.Registration{WorkloadID: workload, IdentityDigest: kbs.Sum384(b)}
	}
	if got, err := signerOf(good, reg("w1", good)); err != nil || len(got.Signer) != 32 || got.WorkloadID != "w1" || got.IdentityDigest != kbs.Sum384(good) {
		t.Errorf("%+v, %v", got, err)
	}
	plain := encode(krun.LogsHost)
	for name, c := range map[string]struct {
		identity []byte
		reg      *kbs.Registration
	}{
		"another's digest": {good, reg("w1", plain)}, "another workload": {good, reg("w2", good)}, "no digest": {good, &kbs.Registration{WorkloadID: "w1"}},
		"logs in clear": {plain, reg("w1", plain)}, "not an identity": {[]byte("{}"), reg("w1", []byte("{}"))}, "empty": {nil, reg("w1", nil)},
	} {
		if got, err := signerOf(c.identity, c.reg); err == nil || got.Signer != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
