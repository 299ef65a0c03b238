package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

func gotten(values map[string]string) kbs.Secrets {
	all := kbs.Secrets{}
	for name, v := range values {
		all[name] = kbs.Secret{Version: 1, Value: secret.New([]byte(v))}
		if code, ok := strings.CutPrefix(v, "refused:"); ok {
			all[name] = kbs.Secret{Refused: code}
		}
	}
	return all
}

// TestSecretVariables: what the image needs is there and fits, or nothing goes on;
// the reason names no value.
func TestSecretVariables(t *testing.T) {
	file, env := krun.SecretRule{Name: "a/b/c", Path: "/etc/x"}, krun.SecretRule{Name: "a/b/c", Env: "A"}
	optional := env
	optional.Optional = true
	for name, x := range map[string]struct {
		rule  krun.SecretRule
		value string
		want  string // of the error
		env   string
	}{
		"variable":          {env, "word", "", "word"},
		"file, binary":      {file, "word\x00\xff", "", ""},
		"variable, NUL":     {env, "word\x00", "NUL", ""},
		"variable, no text": {env, "word\xff", "UTF-8", ""},
		"missing":           {file, "refused:not_found", "a/b/c: the server has none", ""},
		"not approved":      {file, "refused:forbidden", "approval", ""},
		"missing, variable": {env, "refused:not_found", "the server has none", ""},
		"optional":          {optional, "refused:not_found", "", ""},
		"optional, there":   {optional, "word", "", "word"},
		"optional, no text": {optional, "word\x00", "NUL", ""},
	} {
		got, err := secretVariables([]krun.SecretRule{x.rule}, gotten(map[string]string{"a/b/c": x.value}))
		if (err == nil) != (x.want == "") || err != nil && (!strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "word")) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (got == nil || got["A"] != x.env) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := secretVariables([]krun.SecretRule{file}, kbs.Secrets{}); err == nil {
		t.Error("not answered: went on")
	}
}

// TestWriteSecrets: files are where and whose the rules say, and are replaced at
// once: who has one open reads on.
func TestWriteSecrets(t *testing.T) {
	root := t.TempDir()
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	rules := []krun.SecretRule{
		{Name: "a/b/c", Path: "/etc/app/db.pem", Mode: 0o400, UID: uid, GID: gid},
		{Name: "a/b/c", Path: "/run/secrets/many/1", UID: uid, GID: gid},
		{Name: "a/b/d", Env: "D"},
		{Name: "a/b/e", Path: "/etc/none", Optional: true},
	}
	if err := writeSecrets(root, rules, gotten(map[string]string{"a/b/c": "old\x00", "a/b/d": "x", "a/b/e": "refused:not_found"})); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(filepath.Join(root, "many/1"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := writeSecrets(root, rules, gotten(map[string]string{"a/b/c": "new", "a/b/d": "x"})); err != nil {
		t.Fatal(err)
	}
	before := make([]byte, 10)
	if n, _ := open.Read(before); string(before[:n]) != "old\x00" {
		t.Errorf("read on %q", before[:n])
	}
	for place, mode := range map[string]os.FileMode{".at/0/db.pem": 0o400, "many/1": 0o444} {
		b, err := os.ReadFile(filepath.Join(root, place))
		st, _ := os.Stat(filepath.Join(root, place))
		if err != nil || string(b) != "new" || st.Mode() != mode {
			t.Errorf("%s: %q, %v, %v", place, b, st, err)
		}
	}
	for _, place := range []string{newSecret, ".at/2", ".at/3"} {
		if _, err := os.Lstat(filepath.Join(root, place)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", place, err)
		}
	}
}

// TestSecretsFull: a file system without room keeps the file that was there.
func TestSecretsFull(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", noExec, "size=12k"); err != nil {
		t.Skipf("needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	rules := []krun.SecretRule{{Name: "a/b/c", Path: "/etc/x"}}
	if err := writeSecrets(root, rules, gotten(map[string]string{"a/b/c": "old"})); err != nil {
		t.Fatal(err)
	}
	err := writeSecrets(root, rules, gotten(map[string]string{"a/b/c": strings.Repeat("n", kbs.MaxResourceBytes)}))
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "a/b/c") {
		t.Errorf("full: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(root, ".at/0/x")); err != nil || string(b) != "old" {
		t.Errorf("left %q, %v", b, err)
	}
	if err := writeSecrets(root, rules, gotten(map[string]string{"a/b/c": "small"})); err != nil {
		t.Errorf("then a small one: %v", err)
	}
}

// TestAddSecrets: variables get to the process, and a boot that has not asked for
// them goes no further.
func TestAddSecrets(t *testing.T) {
	b := &boot{identity: &krun.Identity{Policy: krun.LaunchPolicy{Secrets: []krun.SecretRule{{Name: "a/b/c", Env: "A"}}}}, process: &krun.Process{Env: []string{"A=image", "B=b"}}}
	if err := b.addSecrets(); !errors.Is(err, errNoSecrets) {
		t.Errorf("not asked for: %v", err)
	}
	b.secretEnv = map[string]string{"A": "word"}
	if err := b.addSecrets(); err != nil || fmt.Sprint(b.process.Env) != "[B=b A=word]" {
		t.Errorf("%q, %v", b.process.Env, err)
	}
	b.secretEnv = map[string]string{}
	for i := range 40 {
		b.secretEnv[fmt.Sprint("V", i)] = strings.Repeat("w", kbs.MaxResourceBytes)
	}
	if err := b.addSecrets(); classOf(err) != classSecrets || strings.Contains(err.Error(), "ww") {
		t.Errorf("too long: %.100v", err)
	}
}

// TestWantedSecrets: a host's request is read where the image lets it ask, and
// there alone.
func TestWantedSecrets(t *testing.T) {
	g, err := luks.NewGeometry("8392b074-a42c-4b49-9b3e-8cfb0429ff8c", 1<<20, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	id := &krun.Identity{Disk: krun.DiskIdentity{Geometry: g, ImageBytes: g.TotalBytes() + krun.FooterAlign}, Scratch: krun.Scratch{Kind: krun.ScratchDisk, Bytes: krun.MinScratchBytes, Damaged: krun.DamagedReplace}}
	at, err := id.Disk.LaunchBytes(id.Scratch)
	if err != nil {
		t.Fatal(err)
	}
	request, err := krun.EncodeRequest("kbs:///a/b/c,target=x")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		left  []byte // behind the scratch area
		allow []string
		want  int // secrets; 0: an error
	}{
		"asked":              {request, []string{"a/b/*"}, 2},
		"nothing asked":      {make([]byte, krun.RequestBytes), []string{"a/b/*"}, 1},
		"no room":            {nil, []string{"a/b/*"}, 1},
		"cut":                {request[:100], []string{"a/b/*"}, 1},
		"not allowed":        {request, []string{"x/b/*"}, 0},
		"may not ask":        {request, nil, 1},
		"damaged":            {append([]byte("x"), request[1:]...), []string{"a/b/*"}, 0},
		"damaged, not asked": {append([]byte("x"), request[1:]...), nil, 1},
	} {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(x.left, at)
		if err = errors.Join(err, f.Truncate(at+int64(len(x.left))), f.Close()); err != nil {
			t.Fatal(err)
		}
		id.Policy = krun.LaunchPolicy{Secrets: []krun.SecretRule{{Name: "a/b/own", Path: "/etc/x"}}, SecretAllow: x.allow}
		b := &boot{identity: id, disk: &disk{path: path, size: at + int64(len(x.left))}}
		rules, err := b.wantedSecrets()
		if (err == nil) != (x.want > 0) || err == nil && len(rules) != x.want {
			t.Errorf("%s: %+v, %v", name, rules, err)
		}
	}
	id.Policy = krun.LaunchPolicy{Secrets: []krun.SecretRule{{Name: "a/b/own", Path: "/run/secrets/x"}}, SecretAllow: []string{"a/b/*"}}
	b := &boot{identity: id, disk: &disk{path: path, size: at + krun.RequestBytes}}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, _ := os.OpenFile(path, os.O_WRONLY, 0)
	_, err = f.WriteAt(request, at)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if rules, err := b.wantedSecrets(); err == nil {
		t.Errorf("in the place of the image's own: %+v", rules)
	}
}
