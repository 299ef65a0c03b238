package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/cmd/face"
)

// blankReport is in the form of an SNP report and authentic by nobody's word.
func blankReport(t *testing.T) string {
	t.Helper()
	b := make([]byte, 1184)
	binary.LittleEndian.PutUint32(b, 3)
	return write(t, string(b))
}

// TestVerifyHostileFiles: --policy and --reference of odd content are errors
// of usage before anything is appraised; odd endorsements change no verdict.
func TestVerifyHostileFiles(t *testing.T) {
	report := blankReport(t)
	for name, content := range map[string]string{
		"empty": "", "array": "[]", "text": "hello", "number": "7", "two values": "{}{}", "trailing text": "{} x",
		"unknown rule":        `{"snp":{"allow_all":true}}`,
		"unknown TEE":         `{"sgx":{}}`,
		"twice":               `{"snp":{},"snp":{"allow_debug":true}}`,
		"twice, by case":      `{"snp":{},"SNP":{"allow_debug":true}}`,
		"rule twice":          `{"snp":{"allow_debug":false,"allow_debug":true}}`,
		"another type":        `{"snp":{"allow_debug":"yes"}}`,
		"negative":            `{"snp":{"vmpl":-1}}`,
		"overflow":            `{"snp":{"minimum_tcb":{"microcode":256}}}`,
		"deep":                strings.Repeat(`{"snp":`, 5000),
		"2 MiB of spaces":     strings.Repeat(" ", 2<<20) + "{}",
		"NUL":                 "{}\x00",
		"byte order mark":     "\ufeff{}",
		"half a surrogate":    `{"snp":{"host_data":"\ud800"},"x":1}`,
		"64 MiB":              strings.Repeat("{", 64<<20),
		"measurement of half": `{"measurements":[{"launch_digest":"ab"}]}`,
	} {
		for _, flag := range []string{"--policy", "--reference"} {
			if code, _, out := runVerify(t, "--evidence", report, flag, write(t, content)); code != face.Misused {
				t.Errorf("%s as %s: exit %d, expected %d\n%.300s", name, flag, code, face.Misused, out)
			}
		}
	}
	for _, flag := range []string{"--policy", "--reference"} {
		for _, file := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
			if code, _, _ := runVerify(t, "--evidence", report, flag, file); code != face.Failed {
				t.Errorf("%s %s: exit %d, expected %d", flag, file, code, face.Failed)
			}
		}
	}
}

// TestVerifyHostileDirectory: what lies beside the endorsements is passed
// over, and never makes a blank report good.
func TestVerifyHostileDirectory(t *testing.T) {
	report := blankReport(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Symlink("/dev/zero", at("a.der")), os.Symlink("b", at("b")), os.Symlink("none", at("c.pem")), os.Mkdir(at("d.pem"), 0o700),
		os.WriteFile(at("e.crl"), []byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), 0o600),
		os.WriteFile(at("f.collateral.json"), []byte(`{"tcb_info":"{","qe_identity":"{"}`), 0o600),
		os.WriteFile(at("g"), []byte(strings.Repeat("-----BEGIN CERTIFICATE-----\n", 1000)), 0o600),
		os.WriteFile(at("huge"), nil, 0o600), os.Truncate(at("huge"), 1<<40),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		if err := os.WriteFile(at(fmt.Sprint("unrelated", i)), []byte("0123"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, r, out := runVerify(t, "--evidence", report, "--endorsements", dir)
	if code != face.Denied || len(r.Failed()) == 0 {
		t.Errorf("exit %d, %.500s", code, out)
	}
	if code, _, _ := runVerify(t, "--evidence", report, "--endorsements", report); code != face.Failed {
		t.Errorf("a file for a directory: exit %d", code)
	}
}
