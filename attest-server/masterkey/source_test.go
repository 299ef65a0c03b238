package masterkey

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// unwrapper opens one ciphertext.
type unwrapper map[string]string

func (u unwrapper) Unwrap(_ context.Context, ciphertext string) (secret.Bytes, error) {
	if k, ok := u[ciphertext]; ok {
		return secret.New([]byte(k)), nil
	}
	return secret.Bytes{}, errors.New("permission denied")
}

func newKey(t *testing.T) secret.Bytes {
	t.Helper()
	k, err := New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestMasterKeySource(t *testing.T) {
	k, next := newKey(t), newKey(t)
	under, err := SealNext(k, next, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	underOther, err := SealNext(next, k, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(under, next.Reveal()) {
		t.Error("the next key is in clear")
	}
	clear := string(k.Reveal())
	transit := unwrapper{"vault:v1:abc": clear, "vault:v1:short": "x"}
	wrapped, err := Wrapped(t.Context(), transit, "vault:v1:abc", k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Wrapped(t.Context(), transit, "vault:v1:abc", next); err == nil {
		t.Error("a ciphertext of another key is taken")
	}
	if _, err := Wrapped(t.Context(), unwrapper{}, "vault:v1:abc", k); err == nil {
		t.Error("a ciphertext that does not unwrap is taken")
	}
	for name, x := range map[string]struct {
		content string
		mode    fs.FileMode
		transit Unwrapper
		want    string // in the error; empty: the key
	}{
		"in clear":               {clear, 0o600, nil, ""},
		"wrapped":                {string(wrapped), 0o600, transit, ""},
		"wrapped, by whom":       {string(wrapped), 0o600, nil, "no [transit]"},
		"wrapped, not opened":    {string(wrapped), 0o600, unwrapper{}, "permission denied"},
		"wrapped, something":     {`{"version":1,"transit":"vault:v1:short"}`, 0o600, transit, "expected 32 bytes"},
		"read by all":            {clear, 0o644, nil, "chmod"},
		"empty":                  {"", 0o600, transit, "neither 32 bytes"},
		"short":                  {clear[1:], 0o600, transit, "neither 32 bytes"},
		"long":                   {clear + "\n", 0o600, transit, "neither 32 bytes"},
		"endless":                {strings.Repeat("x", 1<<20), 0o600, transit, "more than"},
		"newer form":             {`{"version":2,"transit":"vault:v1:abc"}`, 0o600, transit, "version 1"},
		"unknown field":          {`{"version":1,"transit":"vault:v1:abc","x":1}`, 0o600, transit, "version 1"},
		"wrapped twice":          {`{"version":1,"transit":"vault:v1:abc","under":"AAAA"}`, 0o600, transit, "version 1"},
		"wrapped by nobody":      {`{"version":1}`, 0o600, transit, "version 1"},
		"the next in its place":  {string(under), 0o600, transit, "next master key"},
		"two names of one field": {`{"version":1,"transit":"vault:v1:abc","transit":"vault:v1:abc"}`, 0o600, transit, "version 1"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, Name)
		if err := os.WriteFile(path, []byte(x.content), x.mode); err != nil {
			t.Fatal(err)
		}
		for _, s := range []Source{{Dir: dir, Transit: x.transit}, {File: path, Transit: x.transit}} {
			got, err := s.Load(t.Context())
			switch {
			case x.want == "" && (err != nil || !got.Equal(k)):
				t.Errorf("%s: %v", name, err)
			case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want) || got.Len() != 0):
				t.Errorf("%s: %d bytes, %v, expected %q", name, got.Len(), err, x.want)
			}
		}
	}

	dir := t.TempDir()
	s := Source{Dir: dir, Stdin: strings.NewReader(clear)}
	if got, err := s.Load(t.Context()); err != nil || !got.Equal(k) {
		t.Errorf("standard input: %v", err)
	}
	s.Stdin = nil
	if _, err := s.Next(t.Context(), k); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no next key: %v", err)
	}
	put := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, NextName), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	there := func() bool { _, err := os.Stat(filepath.Join(dir, NextName)); return err == nil }
	put(under)
	if got, err := s.Next(t.Context(), k); err != nil || !got.Equal(next) {
		t.Errorf("next key: %v", err)
	}
	if err := s.Settle(t.Context(), k); err != nil || !there() {
		t.Errorf("a rotation under way was settled: %v", err)
	}
	// The key's own file is gone, as if it could not be unwrapped: who held the
	// old one finds the new.
	if keys, err := s.Reload(t.Context(), k); err != nil || len(keys) != 1 || !keys[0].Equal(next) {
		t.Errorf("reload: %d keys, %v", len(keys), err)
	}
	if keys, err := s.Reload(t.Context(), newKey(t)); err == nil || len(keys) != 0 {
		t.Errorf("reload by a stranger: %d keys, %v", len(keys), err)
	}
	put(underOther) // led to the one in use
	if err := s.Settle(t.Context(), k); err != nil || there() {
		t.Errorf("what was left is left: %v", err)
	}
	put(next.Reveal()) // as earlier versions left it
	if err := s.Settle(t.Context(), next); err != nil || there() {
		t.Errorf("what an earlier version left is left: %v", err)
	}
}

// swapping is a transit engine beside which something happens after the first
// key was unwrapped.
type swapping struct {
	unwrapper
	then func()
}

func (s *swapping) Unwrap(ctx context.Context, ciphertext string) (secret.Bytes, error) {
	defer func() {
		if s.then != nil {
			s.then()
			s.then = nil
		}
	}()
	return s.unwrapper.Unwrap(ctx, ciphertext)
}

// TestReloadBesideRotation: a rotation ends, and another one begins, after the
// key was read and before the next one is looked for.
func TestReloadBesideRotation(t *testing.T) {
	one, two, three := newKey(t), newKey(t), newKey(t)
	for name, x := range map[string]struct {
		next []byte
		want []secret.Bytes
	}{
		"one ends":                {nil, []secret.Bytes{two}},
		"one ends, another began": {mustSeal(t, two, three), []secret.Bytes{two, three}},
	} {
		dir := t.TempDir()
		put := func(name, content string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		transit := &swapping{unwrapper{"one": string(one.Reveal()), "two": string(two.Reveal())}, func() {
			put(Name, `{"version":1,"transit":"two"}`)
			os.Remove(filepath.Join(dir, NextName))
			if x.next != nil {
				put(NextName, string(x.next))
			}
		}}
		put(Name, `{"version":1,"transit":"one"}`)
		put(NextName, string(mustSeal(t, one, two)))
		keys, err := Source{Dir: dir, Transit: transit}.Reload(t.Context(), one)
		if err != nil || !slices.EqualFunc(keys, x.want, secret.Bytes.Equal) {
			t.Errorf("%s: %d keys, expected %d: %v", name, len(keys), len(x.want), err)
		}
	}
}

func mustSeal(t *testing.T, current, next secret.Bytes) []byte {
	t.Helper()
	b, err := SealNext(current, next, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKeyFileTouchedByHand: what editors and shells do to a MasterKey's file is
// refused, and said for what it is; a key that ends like a line is none of that.
func TestKeyFileTouchedByHand(t *testing.T) {
	key := bytes.Repeat([]byte{7}, Size)
	key[Size-1] = '\n'
	for name, x := range map[string]struct {
		content []byte
		next    string // in the hint; empty: it is taken
	}{
		"as made":          {key, ""},
		"newline added":    {append(bytes.Clone(key), '\n'), "head -c 32"},
		"CRLF added":       {append(bytes.Clone(key), "\r\n"...), "head -c 32"},
		"newline for byte": {append(bytes.Repeat([]byte{7}, Size), '\n'), "head -c 32"},
		"hex":              {[]byte(hex.EncodeToString(key) + "\n"), "xxd -r -p"},
		"base64":           {[]byte(base64.StdEncoding.EncodeToString(key)), "base64 -d"},
	} {
		path := filepath.Join(t.TempDir(), Name)
		if err := os.WriteFile(path, x.content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Source{File: path}.Load(t.Context())
		if x.next == "" && (err != nil || !bytes.Equal(got.Reveal(), x.content)) || x.next != "" && (err == nil || !strings.Contains(hint.Of(err), x.next) || got.Len() > 0) {
			t.Errorf("%s: %v, hint %q, expected %q", name, err, hint.Of(err), x.next)
		}
		if err != nil && strings.Contains(err.Error()+hint.Of(err), hex.EncodeToString(key[:4])) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}
