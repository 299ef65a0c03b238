package rootfstest

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// File is an entry of a layer.
type File struct {
	Header tar.Header
	Body   []byte
}

func at(sec int64) time.Time { return time.Unix(sec, 123456789) }

// Dir is a directory.
func Dir(name string) File {
	return File{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at(1e9)}}
}

// Regular is a file.
func Regular(name string, body []byte) File {
	return File{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Uid: 70000, Gid: 5, ModTime: at(2e9)}, Body: body}
}

// Symlink is a symbolic link.
func Symlink(name, target string) File {
	return File{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, ModTime: at(3e9)}}
}

// WithXattrs is f with attributes: name, value, name, value.
func WithXattrs(f File, kv ...string) File {
	f.Header.PAXRecords = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		f.Header.PAXRecords["SCHILY.xattr."+kv[i]] = kv[i+1]
	}
	return f
}

// Kinds has one of each kind.
func Kinds() []File {
	return []File{
		{Header: tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}},
		{Header: tar.Header{Name: "big", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 1048575, Mode: 0o660}},
		{Header: tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600}},
		Regular("suid", []byte("x")), {Header: tar.Header{Name: "link", Typeflag: tar.TypeLink, Linkname: "suid", Mode: 0o4755}},
	}
}

// Many is a directory of n files whose names have at least length bytes.
func Many(dir string, n, length int) []File {
	out := []File{Dir(dir)}
	for i := range n {
		name := fmt.Sprintf("%d-", i)
		out = append(out, Regular(dir+"/"+name+strings.Repeat("x", max(0, length-len(name))), []byte(name)))
	}
	return out
}

// Subdirectories are 3000 in one directory.
func Subdirectories() (dirs []File) {
	for i := range 3000 {
		dirs = append(dirs, Dir(fmt.Sprintf("p/%d", i)))
	}
	return dirs
}

// Variety bounds what Random makes.
type Variety struct {
	Latest              int64 // modification time
	SizeBits, XattrBits int
	Namespaces          []string // of attributes, each with its dot
}

// Random is a tree that programs can also name on a command line.
func (v Variety) Random(r *rand.Rand) (out []File) {
	dirs := []string{""}
	var files []string
	pick := func(s []string) string { return s[r.IntN(len(s))] }
	for i := range 50 + r.IntN(400) {
		name := pick(dirs) + fmt.Sprint(i)
		if r.IntN(4) == 0 && len(name) < 2000 {
			name += strings.Repeat("n", r.IntN(240))
		}
		f := File{Header: tar.Header{Name: name, Mode: int64(r.IntN(0o10000)), Uid: r.IntN(1 << 20), Gid: r.IntN(1 << 20),
			ModTime: time.Unix(r.Int64N(v.Latest), r.Int64N(1e9))}}
		switch k := r.IntN(20); {
		case k < 4 && len(name) < 2000:
			f.Header.Typeflag = tar.TypeDir
			dirs = append(dirs, name+"/")
		case k < 7:
			f.Header.Typeflag, f.Header.Linkname = tar.TypeSymlink, strings.Repeat("t", 1+r.IntN(1<<r.IntN(12)))
		case k < 8:
			f.Header.Typeflag, f.Header.Devmajor, f.Header.Devminor = tar.TypeChar, r.Int64N(4096), r.Int64N(1<<r.IntN(21))
		case k < 9:
			f.Header.Typeflag = tar.TypeFifo
		case k < 11 && len(files) > 0:
			f.Header.Typeflag, f.Header.Linkname = tar.TypeLink, pick(files)
		default:
			f.Header.Typeflag = tar.TypeReg
			f.Body = make([]byte, r.IntN(1<<r.IntN(v.SizeBits)))
			for i := range f.Body {
				f.Body[i] = byte(i * len(name))
			}
			files = append(files, name)
		}
		out = append(out, v.xattrs(r, f))
	}
	return out
}

func (v Variety) xattrs(r *rand.Rand, f File) File {
	var kv []string
	for i := range r.IntN(4) {
		namespace := v.Namespaces[r.IntN(len(v.Namespaces))]
		kv = append(kv, fmt.Sprint(namespace, i, strings.Repeat("k", r.IntN(30))), strings.Repeat("v", r.IntN(1<<r.IntN(v.XattrBits))))
	}
	return WithXattrs(f, kv...)
}
