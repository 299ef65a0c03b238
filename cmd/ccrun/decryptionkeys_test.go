package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/cmd/face"
)

func TestParseDecryptionKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fmt.Fprint(w, "hunter3")
	w.Close()
	for spec, want := range map[string][3]string{
		"key.pem":                            {"key.pem", "", ""},
		"key.pem:file=" + file:               {"key.pem", "hunter2", ""},
		fmt.Sprintf("key.pem:fd=%d", r.Fd()): {"key.pem", "hunter3", ""},
		"provider:attestation":               {"", "", "attestation"},
	} {
		k, err := parseDecryptionKey(spec)
		if err != nil || k.Path != want[0] || string(k.Passphrase.Reveal()) != want[1] || k.Provider != want[2] {
			t.Errorf("%s: %q %q %v, expected %q", spec, k.Path, k.Provider, err, want)
		}
	}
	for _, spec := range []string{"key.pem:hunter2", "key.pem:pass=hunter2", "key.pem:fd=x", "key.pem:file=/nonexistent", "key.pem:"} {
		_, err := parseDecryptionKey(spec)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v", spec, err)
		}
		if strings.HasSuffix(spec, "hunter2") && face.Status(err) != face.Misused {
			t.Errorf("%s: %v is not an error of usage", spec, err)
		}
	}
}
