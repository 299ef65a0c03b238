package btrfs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

func TestSameInputSameBytes(t *testing.T) {
	layer := rootfstest.Tar(t, append(append(rootfstest.Many("d", 3000, 20), shapes["xattrs"]...), shapes["sizes"]...))
	sum := func(o Options) (sums [2][32]byte) {
		l, err := Plan(rootfstest.Tree(t, layer), o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range sums { // a layout can also be written twice
			h := sha256.New()
			if err := l.WriteTo(context.Background(), h); err != nil {
				t.Fatal(err)
			}
			sums[i] = [32]byte(h.Sum(nil))
		}
		if sums[0] != sums[1] {
			t.Error("writing twice gives two images")
		}
		return sums
	}
	first := sum(testOptions)
	if sum(testOptions) != first {
		t.Error("planning twice gives two images")
	}
	for name, change := range map[string]func(*Options){
		"UUID":  func(o *Options) { o.UUID[0]++ },
		"label": func(o *Options) { o.Label = "x" }, "time": func(o *Options) { o.Time = time.Unix(6, 0) },
	} {
		other := testOptions
		change(&other)
		if sum(other) == first {
			t.Errorf("%s changes nothing", name)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	links := []rootfstest.File{rootfstest.Regular("f", nil)}
	for i := range maxLinks {
		f := rootfstest.Regular(fmt.Sprint("l", i), nil)
		f.Header.Typeflag, f.Header.Linkname = '1', "f"
		links = append(links, f)
	}
	file := func(name, attribute, value string) []rootfstest.File {
		return []rootfstest.File{rootfstest.WithXattrs(rootfstest.Regular(name, nil), attribute, value)}
	}
	for name, tc := range map[string]struct {
		files []rootfstest.File
		o     Options
		want  string
	}{
		"no UUID":        {nil, Options{}, "UUID must not be zero"},
		"label":          {nil, Options{UUID: testOptions.UUID, Label: strings.Repeat("l", 256)}, "label must have at most 255 bytes, got 256"},
		"big attribute":  {file("d/f", "user.x", strings.Repeat("v", maxXattr-5)), testOptions, `"/d/f": attribute "user.x": name and value have 16229 bytes; BTRFS holds 16228`},
		"bad ACL":        {file("f", "system.posix_acl_access", "nonsense"), testOptions, `"/f": attribute "system.posix_acl_access": not a POSIX ACL`},
		"ACL's tag":      {file("f", "system.posix_acl_default", strings.Replace(testACL, "\x04\x00\x05", "\x03\x00\x05", 1)), testOptions, "unknown tag"},
		"ACL for nobody": {file("f", "system.posix_acl_access", strings.Replace(testACL, "\xe8\x03\x00\x00", "\xff\xff\xff\xff", 1)), testOptions, "names nobody"},
		"too many links": {links, testOptions, `"/f": it has 65536 hard links; BTRFS holds 65535`},
	} {
		t.Run(name, func(t *testing.T) {
			if len(tc.files) > 1<<15 && !long {
				t.Skip("CCRUN_LONG=1 makes tens of thousands of names")
			}
			_, err := Plan(rootfstest.Tree(t, rootfstest.Tar(t, tc.files)), tc.o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestSourceChanged(t *testing.T) { rootfstest.Plan(planned).SourceChanged(t) }

func TestWriteErrors(t *testing.T) { rootfstest.Plan(planned).WriteErrors(t, shapes["content"], 5<<20) }
