package machine

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// program writes a shell script that stands for QEMU.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckObject(t *testing.T) {
	const both = `[ "$*" = "-object help" ] || exit 9
printf 'List of user creatable objects:\n  sev-guest\n  sev-snp-guest\n  tdx-guest\n'`
	for name, c := range map[string]struct {
		script string
		tee    kbs.TEE
		want   error
		good   bool
	}{
		"snp":               {both, kbs.SNP, nil, true},
		"tdx":               {both, kbs.TDX, nil, true},
		"a TEE of ours":     {both, kbs.Sample, nil, false},
		"no TEE":            {both, "", nil, false},
		"too old for SNP":   {"echo '  sev-guest'", kbs.SNP, ErrNoObject, false},
		"too old for TDX":   {"echo '  sev-snp-guest'", kbs.TDX, ErrNoObject, false},
		"a longer name":     {"echo '  sev-snp-guest2'; echo '  x sev-snp-guest'", kbs.SNP, ErrNoObject, false},
		"mute":              {"true", kbs.SNP, ErrNoObject, false},
		"it fails":          {both + "\nexit 1", kbs.SNP, nil, false},
		"it talks for ever": {"while :; do echo sev-snp-guest; done", kbs.SNP, nil, false},
	} {
		err := CheckObject(t.Context(), "/", program(t, c.script), c.tee)
		if (err == nil) != c.good || c.want != nil && (!errors.Is(err, c.want) || hint.Of(err) == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckObject(t.Context(), "", "/nonexistent/qemu", kbs.SNP); err == nil {
		t.Error("a QEMU that is not there has the object")
	}
}

func TestQuotesAreServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckQuotes(path); err != nil {
		t.Error(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := CheckQuotes(path); !errors.Is(err, ErrQuotes) || !strings.Contains(hint.Of(err), "quote_socket") {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestQuoteServiceHangs: one that takes no connection any more is none.
func TestQuoteServiceHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for range 16 { // more than wait in its queue
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer c.Close()
	}
	if err := CheckQuotes(path); !errors.Is(err, ErrQuotes) {
		t.Errorf("a service that hangs: %v", err)
	}
}
