package crun

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	bundle := filepath.Join(dir, "bundle")
	if err := os.Mkdir(bundle, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, root := range map[string]string{
		filepath.Join(bundle, "config.json"): "rootfs", "config.json": "/abs/../r", "other.json": "other", filepath.Join(bundle, "other.json"): "wrong",
	} {
		if err := os.WriteFile(path, []byte(`{"root":{"path":"`+root+`"}}`), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		command Command
		rootfs  string
	}{
		{Command{Bundle: "bundle"}, filepath.Join(bundle, "rootfs")},
		{Command{Bundle: bundle, Config: "config.json"}, filepath.Join(bundle, "rootfs")},
		{Command{}, "/r"},
		{Command{Bundle: bundle, Config: "other.json"}, filepath.Join(bundle, "other")}, // as crun: not the bundle's
	} {
		s, err := c.command.Open()
		if err != nil || s.RootFS != c.rootfs || s.Mode != 0o640 {
			t.Errorf("%+v: %+v (%v)", c.command, s, err)
		}
	}
	if _, err := (Command{Config: "none.json"}).Open(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// TestHostileSpecs: neither runtime waits, fills memory or reads another
// container than crun will.
func TestHostileSpecs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	for name, text := range map[string]string{
		"empty": "", "cut off": `{"root":{"path":"r"}`, "trailing": `{"root":{"path":"r"}} {}`, "no object": `[]`, "null": `null`,
		"no root": `{}`, "empty root": `{"root":{"path":""}}`, "null root": `{"root":null}`,
		"two roots":      `{"root":{"path":"r"},"root":{"path":"s"}}`,
		"two spellings":  `{"root":{"path":"r"},"Root":{"path":"s"}}`,
		"two below":      `{"root":{"path":"r"},"annotations":{"a":"1","a":"2"}}`,
		"wrong type":     `{"root":{"path":"r"},"annotations":{"a":1}}`,
		"deep":           `{"root":{"path":"r"},"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`,
		"huge number":    `{"root":{"path":"r"},"process":{"user":{"uid":99999999999}}}`,
		"negative umask": `{"root":{"path":"r"},"process":{"user":{"umask":-1}}}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := (Command{Bundle: dir}).Open(); err == nil {
			t.Errorf("%s: read as %+v", name, s.Spec)
		}
	}
	if err := os.Truncate(path, maxSpecBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := (Command{Bundle: dir}).Open(); !errors.Is(err, bounded.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := (Command{Bundle: dir}).Open(); err == nil {
		t.Error("named pipe read")
	}
}

func TestSetKeepsTheRest(t *testing.T) {
	s, err := decode([]byte(`{"root":{"path":"r","new":1e3},"linux":null,"later":{"x":12345678901234567890},"hostname":"h"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []error{
		s.Set("v", "annotations", "a"), s.Set(true, "root", "readonly"), s.Set(nil, "hostname"),
		s.AddDevices([]specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}),
	} {
		if change != nil {
			t.Fatal(change)
		}
	}
	got, err := s.Encode()
	want := `{"annotations":{"a":"v"},"later":{"x":12345678901234567890},"linux":{"devices":[{"path":"/dev/kvm","type":"c","major":10,"minor":232}],` +
		`"resources":{"devices":[{"allow":true,"type":"c","major":10,"minor":232,"access":"rwm"}]}},"root":{"new":1e3,"path":"r","readonly":true}}`
	if err != nil || string(got) != want {
		t.Errorf("%s (%v)", got, err)
	}
	if s.Annotations["a"] != "v" || !s.Root.Readonly || s.Hostname != "" || len(s.Linux.Devices) != 1 {
		t.Errorf("decoded %+v", s.Spec)
	}
	if err := s.Set("x", "later", "x", "y"); err == nil {
		t.Error("a number was made an object")
	}
	if err := s.Set(7, "Hostname"); err == nil {
		t.Error("a member of the wrong type was set")
	}
}

// FuzzSpec: whatever is read, each runtime's judgement ends and leaves what can
// be read again and judged the same.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(plain))
	for _, r := range table() {
		if x, ok := examples()[r.option]; ok && x.path != "" {
			s, err := decode([]byte(plain))
			if err != nil {
				f.Fatal(err)
			}
			if err := s.Set(x.value, strings.Fields(x.path)...); err != nil {
				f.Fatal(err)
			}
			b, err := s.Encode()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, by := range []Runtime{Krun, QEMU} {
			s, err := decode(raw)
			if err != nil {
				return
			}
			m := &Machine{Spec: s, MemoryBytes: 1 << 30, Threads: 128}
			if _, err := m.Judge(by); err != nil {
				continue
			}
			b, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if m.Spec, err = decode(b); err != nil {
				t.Fatalf("judged, it is not readable: %v\n%s", err, b)
			}
			told, err := m.Judge(by)
			if again, _ := m.Encode(); err != nil || string(again) != string(b) || !json.Valid(b) {
				t.Fatalf("judged twice: %q (%v)\n%s\n%s", told, err, b, again)
			}
		}
	})
}
