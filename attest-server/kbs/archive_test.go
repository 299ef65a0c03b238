package kbs

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// archive is n entries as an archive, and what stands for them.
func archive(t testing.TB, n int) []byte {
	t.Helper()
	k := ed25519.NewKeyFromSeed(make([]byte, 32))
	var all []AuditEntry
	prev := make([]byte, 32)
	for i := range n {
		e := AuditEntry{Sequence: int64(i + 1), At: time.UnixMilli(int64(i)).UTC(), Actor: "x", Action: "test", Object: "w"}
		prev = e.ChainHash(prev)
		e.Hash = hex.EncodeToString(prev)
		all = append(all, e)
	}
	b := AuditBase{Sequence: int64(n), Hash: hex.EncodeToString(prev), Root: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", PublicKey: k.Public().(ed25519.PublicKey)}
	m, err := b.Message()
	if err != nil {
		t.Fatal(err)
	}
	b.Signature = ed25519.Sign(k, m)
	var out bytes.Buffer
	err = WriteArchive(&out, 0, hex.EncodeToString(make([]byte, 32)), func(each func(AuditEntry) error) error {
		for _, e := range all {
			if err := each(e); err != nil {
				return err
			}
		}
		return nil
	}, b)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func readArchive(b []byte) (n int, err error) {
	r, err := NewArchiveReader(bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	for {
		if _, err := r.Next(); err != nil {
			if err == io.EOF {
				if _, again := r.Next(); again != io.EOF || r.Base().Sequence != int64(n) {
					return n, errors.New("the end is not the end")
				}
				return n, nil
			}
			return n, err
		}
		n++
	}
}

// TestArchiveIsWhole: every change of an archive's bytes, and every end before its
// end, is seen.
func TestArchiveIsWhole(t *testing.T) {
	good := archive(t, 3)
	if n, err := readArchive(good); n != 3 || err != nil {
		t.Fatalf("%d entries, %v", n, err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := readArchive(bad); err == nil && !strings.EqualFold(string(bad), string(good)) {
			t.Errorf("byte %d, %q, is %q: not seen", i, good[i], bad[i])
		}
		if i%8 != 0 {
			continue
		}
		if _, err := readArchive(good[:i]); !errors.Is(err, ErrArchive) {
			t.Errorf("cut off behind byte %d: %v", i, err)
		}
	}
	if _, err := readArchive(append(good, '\n')); !errors.Is(err, ErrArchive) {
		t.Errorf("with more behind it: %v", err)
	}
	if _, err := readArchive([]byte(strings.Repeat("x", 2*maxArchiveLine))); !errors.Is(err, ErrArchive) {
		t.Errorf("a long line: %v", err)
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(archive(f, 2))
	f.Add([]byte(`{"archive":"ccrun audit archive v1","after":0,"hash":"00"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := readArchive(b); err == nil && n == 0 {
			t.Error("an archive of nothing")
		}
	})
}
