package ext4

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func dir(name string) file {
	return file{hdr: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at(1e9)}}
}

func reg(name string, body []byte) file {
	return file{hdr: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Uid: 70000, Gid: 5, ModTime: at(2e9)}, body: body}
}

func symlink(name, target string) file {
	return file{hdr: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, ModTime: at(3e9)}}
}

func withXattrs(f file, kv ...string) file {
	f.hdr.PAXRecords = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		f.hdr.PAXRecords["SCHILY.xattr."+kv[i]] = kv[i+1]
	}
	return f
}

func many(prefix string, n, nameLen int) (out []file) {
	out = append(out, dir(prefix))
	for i := range n {
		name := fmt.Sprintf("%d-", i)
		name += strings.Repeat("x", max(0, nameLen-len(name)))
		out = append(out, reg(prefix+"/"+name, nil))
	}
	return out
}

var shapes = map[string][]file{
	"empty": nil,
	"small": {dir("etc"), reg("etc/hostname", []byte("box\n")), symlink("bin", "usr/bin")},
	"kinds": {
		{hdr: tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}},
		{hdr: tar.Header{Name: "big", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 1048575, Mode: 0o660}},
		{hdr: tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600}},
		symlink("short", strings.Repeat("a", 59)), symlink("long", strings.Repeat("b", 60)), symlink("longest", strings.Repeat("c", 4095)),
		reg("suid", []byte("x")), {hdr: tar.Header{Name: "link", Typeflag: tar.TypeLink, Linkname: "suid", Mode: 0o4755}},
	},
	"xattrs": {
		withXattrs(reg("cap", []byte("x")), "security.capability", string([]byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})),
		withXattrs(reg("many", []byte("x")), "user.a", strings.Repeat("v", 200), "user.b", "", "user.ccc", "x", "trusted.t", "yy", "user.z", strings.Repeat("w", 3000)),
		withXattrs(dir("acl"), "system.posix_acl_default", "\x02\x00\x00\x00\x01\x00\x07\x00\x00\x00\x00\x00\x02\x00\x05\x00\xe8\x03\x00\x00\x04\x00\x05\x00\x00\x00\x00\x00\x10\x00\x05\x00\x00\x00\x00\x00\x20\x00\x05\x00\x00\x00\x00\x00"),
		withXattrs(symlink("sl", "x"), "trusted.x", strings.Repeat("q", 500)),
	},
	"big directory":  many("d", 5000, 20),
	"long names":     many("d", 9000, 255),
	"short names":    many("d", 25000, 5),
	"content":        {reg("a", bytes.Repeat([]byte("abc"), 5000)), reg("b", nil), reg("c", bytes.Repeat([]byte("z"), 300<<20>>3)), reg("d", []byte("end"))},
	"own lost+found": {dir("lost+found"), reg("lost+found/x", []byte("y"))},
	"bytes":          {reg("n\xff\xfe\x80", nil), reg("sp ace\n", nil)},
}

func init() {
	shapes["high names"] = many("\xe4\xb8", 3000, 9)
	for i := range shapes["high names"] {
		f := &shapes["high names"][i]
		f.hdr.Name = strings.Replace(f.hdr.Name, "x", "\xc3\xa9", -1)
	}
	var subdirs []file
	for i := range 3000 {
		subdirs = append(subdirs, dir(fmt.Sprintf("p/%d", i)))
	}
	shapes["many subdirectories"] = subdirs
}

func TestShapesPassFsck(t *testing.T) {
	for name, files := range shapes {
		for _, journal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/journal=%v", name, journal), func(t *testing.T) {
				t.Parallel()
				img, _ := writeImage(t, treeOf(t, tarOf(t, files)), Options{Journal: journal, Time: at(1700000000)})
				fsck(t, img)
			})
		}
	}
}
