package ext4

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

var shapes = map[string][]rootfstest.File{
	"empty": nil,
	"small": {rootfstest.Dir("etc"), rootfstest.Regular("etc/hostname", []byte("box\n")), rootfstest.Symlink("bin", "usr/bin")},
	"kinds": append(rootfstest.Kinds(), rootfstest.Symlink("short", strings.Repeat("a", 59)), rootfstest.Symlink("long", strings.Repeat("b", 60)),
		rootfstest.Symlink("longest", strings.Repeat("c", 4095))),
	"xattrs": {
		rootfstest.WithXattrs(rootfstest.Regular("cap", []byte("x")), "security.capability", string([]byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})),
		rootfstest.WithXattrs(rootfstest.Regular("many", []byte("x")), "user.a", strings.Repeat("v", 200), "user.b", "", "user.ccc", "x", "trusted.t", "yy", "user.z", strings.Repeat("w", 3000)),
		rootfstest.WithXattrs(rootfstest.Dir("acl"), "system.posix_acl_default", "\x02\x00\x00\x00\x01\x00\x07\x00\x00\x00\x00\x00\x02\x00\x05\x00\xe8\x03\x00\x00\x04\x00\x05\x00\x00\x00\x00\x00\x10\x00\x05\x00\x00\x00\x00\x00\x20\x00\x05\x00\x00\x00\x00\x00"),
		rootfstest.WithXattrs(rootfstest.Symlink("sl", "x"), "trusted.x", strings.Repeat("q", 500)),
	},
	"big directory":  rootfstest.Many("d", 5000, 20),
	"long names":     rootfstest.Many("d", 9000, 255),
	"short names":    rootfstest.Many("d", 25000, 5),
	"content":        {rootfstest.Regular("a", bytes.Repeat([]byte("abc"), 5000)), rootfstest.Regular("b", nil), rootfstest.Regular("c", bytes.Repeat([]byte("z"), 300<<20>>3)), rootfstest.Regular("d", []byte("end"))},
	"own lost+found": {rootfstest.Dir("lost+found"), rootfstest.Regular("lost+found/x", []byte("y"))},
	"high names":     highNames(), "many subdirectories": rootfstest.Subdirectories(),
	"bytes": {rootfstest.Regular("n\xff\xfe\x80", nil), rootfstest.Regular("sp ace\n", nil)},
}

func highNames() []rootfstest.File {
	files := rootfstest.Many("\xe4\xb8", 3000, 9)
	for i := range files {
		files[i].Header.Name = strings.ReplaceAll(files[i].Header.Name, "x", "\xc3\xa9")
	}
	return files
}

// TestShapes: e2fsck finds an image of each shape perfect, and debugfs reads
// from it what it was made from. A journal takes its place from the rest.
func TestShapes(t *testing.T) {
	unread := []string{"long names", "short names", "high names", "many subdirectories", "bytes"} // by debugfs, one by one
	for name, files := range shapes {
		for _, journal := range []bool{false, true} {
			if journal && slices.Contains(unread, name) && os.Getenv("CCRUN_LONG") == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s/journal=%v", name, journal), func(t *testing.T) {
				t.Parallel()
				img, l := writeImage(t, rootfstest.Tree(t, rootfstest.Tar(t, files)), Options{Journal: journal, Time: time.Unix(1700000000, 0)})
				fsck(t, img)
				if !journal && !slices.Contains(unread, name) {
					verify(t, img, l)
				}
			})
		}
	}
}
