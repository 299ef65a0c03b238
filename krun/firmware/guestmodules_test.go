package firmware

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Kernels name the hash modules differently; whichever are files go along.
func TestGuestModules(t *testing.T) {
	for kernel, c := range map[string]struct{ files, more, aegis []string }{
		"built in":    {nil, nil, nil},
		"before 6.16": {[]string{"crypto/sha256_generic.ko.xz", "crypto/hmac.ko", "crypto/sha512.ko"}, []string{"hmac", "sha256_generic"}, nil},
		"since 6.16":  {[]string{"crypto/sha256.ko.zst", "crypto/sha256.txt"}, []string{"sha256"}, nil},
		"AEGIS":       {[]string{"arch/x86/crypto/aegis128-aesni.ko", "crypto/aegis128.ko"}, nil, []string{"aegis128_aesni", "aegis128"}},
	} {
		dir := t.TempDir()
		for _, f := range c.files {
			path := filepath.Join(dir, f)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := GuestModules(dir, kbs.Sample)
		if err != nil || !slices.Equal(got.Always, append(machineModules(), c.more...)) || !slices.Equal(got.Images["aegis128"], c.aegis) || len(got.Images) < 3 {
			t.Errorf("%s: %v %v", kernel, got, err)
		}
	}
	for tee, driver := range map[kbs.TEE]string{kbs.SNP: "sev_guest", kbs.TDX: "tdx_guest"} {
		if got, err := GuestModules(t.TempDir(), tee); err != nil || !slices.Contains(got.Always, driver) {
			t.Errorf("%s: %v %v", tee, got, err)
		}
	}
	if _, err := GuestModules("/nonexistent", kbs.Sample); err == nil {
		t.Error("missing directory accepted")
	}
}

// TestSoftDependencies: libcrc32c asks for crc32c while it starts, which is an
// alias of crc32c_generic, and says so only in softdep=.
func TestSoftDependencies(t *testing.T) {
	root := t.TempDir()
	ko(t, root, "libcrc32c.ko", "\\0softdep=post: late pre: crc32c zlib-hash nobody early\\0softdep=pre: libcrc32c")
	for _, name := range []string{"crc32c_generic", "my_zlib", "early", "late"} {
		ko(t, root, name+".ko", "")
	}
	ko(t, root, "fs.ko", "libcrc32c")
	writeFile(t, filepath.Join(root, "modules.alias"), []byte("# Aliases\nalias zlib_hash my_zlib\nalias pci:v*d* late\nalias crc32c-x\n"))
	b, err := ModulesSegment(root, Modules{Always: []string{"fs"}})
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, name := range []string{"crc32c_generic", "my_zlib", "early", "libcrc32c", "fs"} {
		want += "/lib/modules/" + name + ".ko\n"
	}
	if !bytes.Contains(b, []byte(want)) || bytes.Contains(b, []byte("late.ko")) {
		t.Errorf("no list %q in the segment", want)
	}
}

func TestBefore(t *testing.T) {
	for s, want := range map[string][]string{
		"pre: a b post: c": {"a", "b"}, "post: c pre: a": {"a"}, "": nil, "a b": nil, "pre:": nil, "pre: a pre: b": {"a", "b"}, "other: x pre: y": {"y"},
	} {
		if got := before(s); !slices.Equal(got, want) {
			t.Errorf("%q: %q, expected %q", s, got, want)
		}
	}
}
