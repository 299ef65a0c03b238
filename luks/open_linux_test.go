package luks

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What Activate does with a kernel is tested in a virtual machine (tests/);
// here is what it refuses before it gets that far.
func TestActivateRefuses(t *testing.T) {
	g, vk, disk := smallDisk(t, true)
	file := writeTemp(t, "disk", disk)
	for name, try := range map[string]struct {
		call func() (string, error)
		want string
	}{
		"zero geometry": {func() (string, error) { return Activate(Geometry{}, vk, Place{Device: file}, "root", false) }, "UUID"},
		"zero key":      {func() (string, error) { return Activate(g, &VolumeKey{}, Place{Device: file}, "root", false) }, "volume key"},
		"no name":       {func() (string, error) { return Activate(g, vk, Place{Device: file}, "", false) }, "device name"},
		"path as name":  {func() (string, error) { return Activate(g, vk, Place{Device: file}, "../x", false) }, "device name"},
		"long name":     {func() (string, error) { return Activate(g, vk, Place{Device: file}, strings.Repeat("x", 65), false) }, "device name"},
		"regular file":  {func() (string, error) { return Activate(g, vk, Place{Device: file}, "root", false) }, "not a block device"},
		"unaligned":     {func() (string, error) { return Activate(g, vk, Place{file, 512}, "root", false) }, "multiple of"},
		"before it":     {func() (string, error) { return Activate(g, vk, Place{file, -4096}, "root", false) }, "multiple of"},
		"missing":       {func() (string, error) { return Activate(g, vk, Place{Device: file + "x"}, "root", false) }, "no such file"},
		"deactivating":  {func() (string, error) { return "", Deactivate("a b") }, "device name"},
	} {
		if _, err := try.call(); err == nil || !strings.Contains(err.Error(), try.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoCipher: a kernel that lacks the cipher answers a table with ENOENT, and
// nothing else is taken for that.
func TestNoCipher(t *testing.T) {
	g := aegisGeometry(t, 1<<20)
	if err := withoutCipher(&g, unix.ENOENT); !errors.Is(err, ErrNoCipher) || !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "aegis128-plain64") {
		t.Errorf("%v", err)
	}
	for _, other := range []error{nil, unix.EINVAL, unix.ENOMEM} {
		if err := withoutCipher(&g, other); !errors.Is(err, other) || errors.Is(err, ErrNoCipher) {
			t.Errorf("%v became %v", other, err)
		}
	}
}
