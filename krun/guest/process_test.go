package guest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

const processJSON = `{"Entrypoint":["/bin/a"],"Cmd":["b"],"Env":null,"WorkingDir":"","User":"","StopSignal":""}`

func testProcessKey() secret.Bytes { return secret.New([]byte("as from a volume key")) }

func TestDecodeProcess(t *testing.T) {
	key := testProcessKey()
	p, err := decodeProcess([]byte(processJSON), key, krun.ProcessDigest(key, []byte(processJSON)))
	if err != nil || !reflect.DeepEqual(process.Arguments(p), []string{"/bin/a", "b"}) {
		t.Fatalf("%+v, %v", p, err)
	}
	// Each is refused although its digest is the measured one.
	for name, text := range map[string]string{
		"unknown member": strings.Replace(processJSON, `"User"`, `"Usr"`, 1),
		"two values":     processJSON + processJSON,
		"duplicate":      strings.Replace(processJSON, `"Cmd":["b"]`, `"Cmd":["b"],"Cmd":["c"]`, 1),
		"no command":     `{"Entrypoint":null,"Cmd":null,"Env":null,"WorkingDir":"","User":"","StopSignal":""}`,
		"stop signal":    strings.Replace(processJSON, `"StopSignal":""`, `"StopSignal":"SIGNOPE"`, 1),
		"truncated":      processJSON[:20],
		"empty":          "",
	} {
		if _, err := decodeProcess([]byte(text), key, krun.ProcessDigest(key, []byte(text))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, c := range map[string]struct {
		key  secret.Bytes
		want kbs.Digest
	}{
		"zero digest":          {key, kbs.Digest{}},
		"no key and no digest": {secret.Bytes{}, kbs.Digest{}},
		"no key":               {secret.Bytes{}, krun.ProcessDigest(key, []byte(processJSON))},
		"another volume's key": {secret.New([]byte("other")), krun.ProcessDigest(key, []byte(processJSON))},
		"digest without a key": {key, kbs.Sum384([]byte(processJSON))},
		"digest under no key":  {secret.Bytes{}, kbs.Sum384([]byte(processJSON))},
	} {
		if _, err := decodeProcess([]byte(processJSON), c.key, c.want); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	changed := []byte(processJSON)
	changed[20] ^= 1
	if _, err := decodeProcess(changed, key, krun.ProcessDigest(key, []byte(processJSON))); err == nil {
		t.Error("a changed configuration is accepted")
	}
}

func FuzzDecodeProcess(f *testing.F) {
	f.Add([]byte(processJSON))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := decodeProcess(in, testProcessKey(), krun.ProcessDigest(testProcessKey(), in))
		if err != nil {
			return
		}
		if len(process.Arguments(p)) == 0 {
			t.Fatal("nothing to run")
		}
		if _, err := json.Marshal(p); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEnvironment(t *testing.T) {
	got := environment(&krun.Process{Env: []string{"A=1", "HOME=/mine", "A=2", "novalue", "=x", "B=", "C=a=b"}}, "/root", "host")
	want := []string{"A=2", "HOME=/mine", "B=", "C=a=b", "PATH=" + defaultPath, "TERM=xterm", "container=podman", "HOSTNAME=host"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
	if got := environment(&krun.Process{}, "/root", "h"); getenv(got, "HOME") != "/root" || getenv(got, "PATH") != defaultPath || getenv(got, "NONE") != "" {
		t.Errorf("got %q", got)
	}
}

func status(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}
	return 0
}

func TestLookUp(t *testing.T) {
	root := t.TempDir()
	write := func(path string, mode os.FileMode) {
		t.Helper()
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("one/tool", 0o644) // found, but cannot run: keep looking
	write("two/tool", 0o755)
	write("one/plain", 0o644)
	write("two/dir/x", 0o644)
	path := root + "/none:" + root + "/one:two"
	for _, c := range []struct {
		name, want string
		status     int
	}{
		{"tool", root + "/two/tool", 0},
		{"two/tool", root + "/two/tool", 0},
		{root + "/two/tool", root + "/two/tool", 0},
		{"plain", "", 126},
		{"dir", "", 126},
		{"absent", "", 127},
		{root + "/one/plain", "", 126},
		{root + "/two/dir", "", 126},
		{root + "/two/absent", "", 127},
		{root + "/two/tool/below", "", 127},
		{"", "", 127},
	} {
		got, err := lookUp(c.name, path, root)
		if c.status != status(err) || (err == nil && got != c.want) {
			t.Errorf("%q: %q, %v (status %d), expected %q, %d", c.name, got, err, status(err), c.want, c.status)
		}
	}
}

func TestWorkingDirectory(t *testing.T) {
	me := process.Credentials{UID: os.Getuid(), GID: os.Getgid()}
	dir := filepath.Join(t.TempDir(), "a", "b")
	if got, err := workingDirectory(dir, me); err != nil || got != dir {
		t.Errorf("%q, %v", got, err)
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		t.Errorf("not made: %v", err)
	}
	if got, err := workingDirectory("", me); err != nil || got != "/" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := workingDirectory("relative", me); err == nil {
		t.Errorf("accepted %q", got)
	}
}

// TestOldIdentityIsRefused: this agent cannot prove what version 1 digests.
func TestOldIdentityIsRefused(t *testing.T) {
	g, err := luks.NewGeometry("8392b074-a42c-4b49-9b3e-8cfb0429ff8c", 1<<20, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	for version, ok := range map[int]bool{1: false, krun.IdentityVersion: true} {
		id := krun.Identity{
			Version: version, WorkloadID: "w", TEE: kbs.Sample, Policy: krun.LaunchPolicy{Logs: "host"}, ProcessDigest: kbs.Sum384([]byte("p")),
			Servers: krun.Servers{URLs: []string{"https://a.example:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
			Disk:    krun.DiskIdentity{Geometry: g, VolumeKeyDigest: kbs.Sum384([]byte("k")), Filesystem: "ext4"},
		}
		if ok {
			id.Disk.ImageBytes, id.Scratch.Kind = g.TotalBytes()+krun.FooterAlign, krun.ScratchMemory
		}
		raw, err := id.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := new(boot).takeIdentity(raw); (err == nil) != ok {
			t.Errorf("version %d: %v", version, err)
		}
	}
}
