package contexts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// user is the store of a user with nothing in it.
func user(t *testing.T) Store {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	s, err := User()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContexts(t *testing.T) {
	s := user(t)
	dir := s.dir
	killed := filepath.Join(dir, unfinished+"1")
	if err := os.MkdirAll(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed, tokenFile), []byte("token of a killed login"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Fatalf("%v %v", list, err)
	}
	if _, err := s.Current(); !errors.Is(err, ErrNone) {
		t.Fatal(err)
	}
	for _, name := range []string{"prod", "lab"} {
		if err := s.Put(name, "https://"+name, []byte("pem")[:3*len(name)/4-2], secret.New([]byte("token of "+name))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(killed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed login left is there: %v", err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "prod": 0o700, "prod/token": 0o600, "prod/ca.pem": 0o600, "current": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, expected %v", name, info.Mode(), err, mode)
		}
	}
	if c, err := s.Current(); err != nil || c.Name != "lab" || c.CAFile != "" || c.Server != "https://lab" {
		t.Errorf("%+v %v", c, err)
	}
	if err := s.Use("prod"); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Name != "lab" || !list[1].Current || list[1].CAFile == "" {
		t.Fatalf("%+v %v", list, err)
	}
	if b, err := os.ReadFile(list[1].TokenFile); err != nil || string(b) != "token of prod\n" {
		t.Errorf("%q %v", b, err)
	}
	// Again: without the CA that it had.
	if err := s.Put("prod", "https://new", nil, secret.New([]byte("t"))); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Get("prod"); err != nil || c.CAFile != "" || c.Server != "https://new" {
		t.Errorf("%+v %v", c, err)
	}
	if err := s.Remove("prod"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Current(); !errors.Is(err, ErrNone) {
		t.Error("a context that was removed is in use")
	}
	if err := s.Use("prod"); err == nil || hint.Of(err) == "" {
		t.Errorf("using what is not there: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v %v", entries, err)
	}
}

func TestNames(t *testing.T) {
	s := user(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".new-1", "current", "-x", "a b", "ä"} {
		if err := s.Put(name, "https://x", nil, secret.New([]byte("t"))); !errors.Is(err, hint.ErrUsage) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A context that was cut is an error, never one without its certificates.
func TestDamaged(t *testing.T) {
	s := user(t)
	if err := s.Put("a", "https://x", []byte("pem"), secret.New([]byte("t"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.dir, "a", caFile)); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Current(); err != nil || c.CAFile == "" {
		t.Errorf("without its certificates the context trusts the system's: %+v %v", c, err)
	}
	for _, content := range []string{"", "{}", `{"url":"https://x","more":1}`, "null"} {
		if err := os.WriteFile(filepath.Join(s.dir, "a", serverFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Current(); err == nil {
			t.Errorf("%q is a context", content)
		}
	}
}
