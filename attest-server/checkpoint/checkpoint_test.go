package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func private(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func logSigner(t testing.TB, origin string, seed byte) *Signer {
	s, err := LogSigner(origin, private(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func witnessSigner(t testing.TB, name string, seed byte) *Signer {
	s, err := WitnessSigner(name, private(seed), func() time.Time { return time.Unix(1_800_000_000, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// leaves are a reference tree, kept as x/mod keeps it.
type leaves []tlog.Hash

func (l *leaves) add(t testing.TB, data []byte) {
	more, err := tlog.StoredHashes(int64(l.n()), data, l)
	if err != nil {
		t.Fatal(err)
	}
	*l = append(*l, more...)
}

func (l *leaves) n() (n int64) {
	for tlog.StoredHashCount(n+1) <= int64(len(*l)) {
		n++
	}
	return n
}

func (l *leaves) ReadHashes(indexes []int64) (all []tlog.Hash, err error) {
	for _, i := range indexes {
		all = append(all, (*l)[i])
	}
	return all, nil
}

// TestTree compares the edge with the tree of x/mod, at each size.
func TestTree(t *testing.T) {
	var tree Tree
	ref := &leaves{}
	if got, want := tree.Root().String(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="; got != want {
		t.Errorf("empty root %s, expected %s", got, want)
	}
	var complete []Node
	for i := range 600 {
		data := fmt.Appendf(nil, "entry %d", i)
		ref.add(t, data)
		before := tree.Clone()
		complete = append(complete, tree.Append(data)...)
		want, err := tlog.TreeHash(int64(i+1), ref)
		if err != nil || tree.Root() != want || tree.Size() != int64(i+1) {
			t.Fatalf("size %d: root %v, expected %v, %v", i+1, tree.Root(), want, err)
		}
		again, err := ReadTree(int64(i+1), ref)
		if err != nil || again.Root() != want {
			t.Fatalf("read at size %d: %v, %v", i+1, again.Root(), err)
		}
		if before.Size() > 0 && before.Append([]byte("other")) == nil && before.Root() == want {
			t.Fatal("another leaf, the same root")
		}
	}
	if len(complete) != 2 || complete[1].Level != TileLevels || complete[1].N != 1 || complete[1].Hash != (*ref)[tlog.StoredHashIndex(TileLevels, 1)] {
		t.Errorf("complete tiles %v", complete)
	}
}

// TestForeignKey: x/mod's own keys and notes are read, and ours by it.
func TestForeignKey(t *testing.T) {
	skey, vkey, err := note.GenerateKey(nil, "example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseLogKey(vkey)
	if err != nil || k.String() != vkey {
		t.Fatalf("%v, %v, expected %s", k, err, vkey)
	}
	c := Checkpoint{Origin: "example.com/log", Size: 3, Root: tlog.Hash{1}}
	b, err := note.Sign(&note.Note{Text: c.Text()}, theirs)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Open(b, []Verifier{k}); err != nil || s.Checkpoint != c {
		t.Errorf("Open = %+v, %v", s, err)
	}
	ours := logSigner(t, "example.com/ours", 1)
	v, err := note.NewVerifier(ours.Verifier().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Origin = "example.com/ours"
	if b, err = SignCheckpoint(c, ours); err != nil {
		t.Fatal(err)
	}
	if n, err := note.Open(b, note.VerifierList(v)); err != nil || n.Text != c.Text() {
		t.Errorf("x/mod reads %+v, %v", n, err)
	}
	if tree, err := tlog.ParseTree([]byte("go.sum database tree\n3\n" + c.Root.String() + "\n")); err != nil || tree.Hash != c.Root {
		t.Errorf("x/mod reads tree %+v, %v", tree, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	log, other := logSigner(t, "example.com/log", 1), logSigner(t, "example.com/log", 2)
	elsewhere := logSigner(t, "example.com/elsewhere", 1)
	w := witnessSigner(t, "witness", 3)
	c := Checkpoint{Origin: "example.com/log", Size: 12, Root: tlog.Hash{7}}
	sign := func(c Checkpoint, by ...*Signer) string {
		b, err := SignCheckpoint(c, by...)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// raw signs any text, as a log that is not ours could.
	raw := func(text string) string {
		b, err := note.Sign(&note.Note{Text: text}, log)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good := sign(c, log, w)
	s, err := Open([]byte(good), []Verifier{log.Verifier()}, w.Verifier())
	if err != nil || s.Checkpoint != c || len(s.By) != 1 || len(s.Cosigned) != 1 || s.Cosigned[0] != "witness" {
		t.Fatalf("Open = %+v, %v", s, err)
	}
	root := c.Root.String()
	for name, b := range map[string]string{
		"empty":                      "",
		"unsigned":                   c.Text(),
		"another key":                sign(c, other),
		"witness alone":              sign(c, w),
		"key of another log":         sign(c, elsewhere),
		"cosignature of other text":  strings.Replace(good, root, tlog.Hash{8}.String(), 1),
		"size changed":               strings.Replace(good, "\n12\n", "\n13\n", 1),
		"one letter of a signature":  strings.Replace(good, "— witness ", "— witness A", 1),
		"size negative":              raw("example.com/log\n-1\n" + root + "\n"),
		"size with a zero before":    raw("example.com/log\n012\n" + root + "\n"),
		"size with a plus":           raw("example.com/log\n+12\n" + root + "\n"),
		"size of 2^63":               raw("example.com/log\n9223372036854775808\n" + root + "\n"),
		"no origin":                  raw("\n12\n" + root + "\n"),
		"root of 31 bytes":           raw("example.com/log\n12\n" + base64.StdEncoding.EncodeToString(make([]byte, 31)) + "\n"),
		"root with bits left over":   raw("example.com/log\n12\n" + root[:42] + "B=\n"),
		"two lines":                  raw("example.com/log\n12\n"),
		"empty extension":            raw("example.com/log\n12\n" + root + "\n\nx\n"),
		"too many extensions":        raw("example.com/log\n12\n" + root + strings.Repeat("\nx", maxLines) + "\n"),
		"too long":                   raw("example.com/log\n12\n" + root + "\n" + strings.Repeat("x", MaxBytes) + "\n"),
		"too many signatures":        good + strings.Repeat("— someone "+base64.StdEncoding.EncodeToString(make([]byte, 9))+"\n", maxSignatures),
		"a control character":        strings.Replace(good, "example", "exam\x01ple", 1),
		"cut":                        good[:len(good)-3],
		"second line of text signed": raw("x\nexample.com/log\n12\n" + root + "\n"),
	} {
		if s, err := Open([]byte(b), []Verifier{log.Verifier()}, w.Verifier()); err == nil {
			t.Errorf("%s: taken as %+v", name, s)
		}
	}
	if s, err := Open([]byte(sign(c, log)), []Verifier{log.Verifier()}, w.Verifier()); err != nil || len(s.Cosigned) != 0 {
		t.Errorf("without a cosignature: %+v, %v", s, err)
	}
	if s, err := Open([]byte(raw(c.Text()+"extension\n")), []Verifier{log.Verifier()}); err != nil || s.Size != 12 {
		t.Errorf("with an extension: %+v, %v", s, err)
	}
	if _, err := Open([]byte(good), nil, w.Verifier()); err == nil {
		t.Error("without a log's key anything is opened")
	}
}

func TestKeysRefused(t *testing.T) {
	log, w := logSigner(t, "example.com/log", 1).Verifier(), witnessSigner(t, "witness", 3).Verifier()
	if k, err := ParseWitnessKey(w.String()); err != nil || k.KeyHash() != w.KeyHash() {
		t.Errorf("ParseWitnessKey = %v, %v", k, err)
	}
	for name, s := range map[string]string{
		"empty": "", "witness for a log": w.String(), "no id": strings.Replace(log.String(), "+", "", 1),
		"other name": "x" + log.String(), "cut": log.String()[:len(log.String())-4], "space": strings.Replace(log.String(), ".", " ", 1),
	} {
		if k, err := ParseLogKey(s); err == nil {
			t.Errorf("%s: %v", name, k)
		}
	}
	if _, err := ParseWitnessKey(log.String()); err == nil {
		t.Error("a log's key taken for a witness's")
	}
	if _, err := WitnessSigner("w", private(1), nil); err == nil {
		t.Error("a witness without a clock")
	}
}

func TestMerge(t *testing.T) {
	log, w := logSigner(t, "example.com/log", 1), witnessSigner(t, "witness", 3)
	c := Checkpoint{Origin: "example.com/log", Size: 12, Root: tlog.Hash{7}}
	a, _ := SignCheckpoint(c, log)
	s, err := Open(a, []Verifier{log.Verifier()})
	if err != nil {
		t.Fatal(err)
	}
	line, err := w.Cosign(s)
	if err != nil {
		t.Fatal(err)
	}
	both, err := Merge(a, append([]byte(c.Text()+"\n"), line...))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Merge(both, both); err != nil || !bytes.Equal(again, both) {
		t.Errorf("merged with itself: %q, %v", again, err)
	}
	if s, err := Open(both, []Verifier{log.Verifier()}, w.Verifier()); err != nil || len(s.Cosigned) != 1 {
		t.Errorf("merged: %+v, %v", s, err)
	}
	c.Size++
	other, _ := SignCheckpoint(c, log)
	if _, err := Merge(both, other); err == nil {
		t.Error("merged with another checkpoint")
	}
}

func FuzzOpen(f *testing.F) {
	log, w := logSigner(f, "example.com/log", 1), witnessSigner(f, "witness", 3)
	good, err := SignCheckpoint(Checkpoint{Origin: "example.com/log", Size: 12, Root: tlog.Hash{7}}, log, w)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("a\n1\n" + tlog.Hash{}.String() + "\n\n— a " + base64.StdEncoding.EncodeToString(make([]byte, 70)) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := Peek(b); err == nil {
			if again, err := parseText(c.Text()); err != nil || again != c {
				t.Fatalf("%+v is read again as %+v, %v", c, again, err)
			}
		}
		s, err := Open(b, []Verifier{log.Verifier()}, w.Verifier())
		if err == nil && (s.Size != 12 || s.Root != tlog.Hash{7}) {
			t.Fatalf("forged: %+v", s)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(logSigner(f, "example.com/log", 1).Verifier().String())
	f.Add(witnessSigner(f, "witness", 3).Verifier().String())
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) (Verifier, error){ParseLogKey, ParseWitnessKey} {
			if k, err := parse(s); err == nil && k.String() != s {
				t.Fatalf("%q is read as %s", s, k)
			}
		}
	})
}
