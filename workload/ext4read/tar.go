package ext4read

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const (
	maxPathBytes = 4096
	maxLinkBytes = 4095
	fastLink     = 60

	typeMask = 0xF000
	typeDir  = 0x4000
	typeReg  = 0x8000
	typeLink = 0xA000
	typeChr  = 0x2000
	typeBlk  = 0x6000
	typeFIFO = 0x1000
	typeSock = 0xC000
)

// ReadFile reads a regular file in the root directory, of at most limit
// bytes. It is an os.ErrNotExist if there is none.
func (f *FS) ReadFile(name string, limit int64) ([]byte, error) {
	root, err := f.inode(rootInode)
	if err != nil {
		return nil, err
	}
	list, err := f.dir(root, f.limits.Entries)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if e.name != name {
			continue
		}
		i, err := f.inode(e.inode)
		if err != nil {
			return nil, err
		}
		if i.mode&typeMask != typeReg || i.size > limit {
			return nil, fmt.Errorf("/%s is no regular file of at most %d bytes", name, limit)
		}
		r, err := f.content(i)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: os.ErrNotExist}
}

// walk is one WriteTar.
type walk struct {
	ctx     context.Context
	fs      *FS
	tw      *tar.Writer
	skip    func(path string) bool
	names   map[uint32]string // first name of what has several
	dirs    map[uint32]bool
	entries int
	bytes   int64
	notes   []string
}

// WriteTar writes the whole tree, parents first, names in byte order, without
// the paths for which skip is true ("etc/passwd"; skip may be nil). It closes
// w. The notes say what a tar could not hold.
func (f *FS) WriteTar(ctx context.Context, to io.Writer, skip func(path string) bool) (notes []string, err error) {
	if skip == nil {
		skip = func(string) bool { return false }
	}
	w := &walk{ctx: ctx, fs: f, tw: tar.NewWriter(to), skip: skip, names: map[uint32]string{}, dirs: map[uint32]bool{}}
	root, err := f.inode(rootInode)
	if err != nil {
		return nil, err
	}
	if root.mode&typeMask != typeDir {
		return nil, errors.New("the root is not a directory")
	}
	if err := w.node("", root); err != nil {
		return nil, err
	}
	return w.notes, w.tw.Close()
}

func (w *walk) node(path string, i *inode) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := w.header(path, i); err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	}
	if i.mode&typeMask != typeDir {
		return nil
	}
	if w.dirs[i.number] {
		return fmt.Errorf("/%s: directory %d has two names", path, i.number)
	}
	w.dirs[i.number] = true
	list, err := w.fs.dir(i, w.fs.limits.Entries-w.entries)
	if err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	}
	for _, e := range list {
		if w.entries++; w.entries > w.fs.limits.Entries {
			return fmt.Errorf("more than %d names", w.fs.limits.Entries)
		}
		name := strings.TrimPrefix(path+"/"+e.name, "/")
		if len(name) > maxPathBytes {
			return fmt.Errorf("path of %d bytes, at most %d allowed", len(name), maxPathBytes)
		}
		if w.skip(name) {
			continue
		}
		child, err := w.fs.inode(e.inode)
		if err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
		if err := w.node(name, child); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) header(path string, i *inode) error {
	h := &tar.Header{
		Name: path, Mode: int64(i.mode & 0o7777), Uid: int(i.uid), Gid: int(i.gid),
		ModTime: i.mtime, Format: tar.FormatPAX,
	}
	if path == "" {
		h.Name = "./"
	}
	if strings.HasPrefix(path[strings.LastIndexByte(path, '/')+1:], ".wh.") {
		return errors.New("a name like a whiteout's cannot be kept in a layer")
	}
	if first, ok := w.names[i.number]; ok {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return w.tw.WriteHeader(h)
	}
	attrs, acls, err := w.fs.xattrs(i)
	if err != nil {
		return err
	}
	if acls > 0 {
		w.notes = append(w.notes, fmt.Sprintf("/%s: %d access control lists left out", path, acls))
	}
	for name, value := range attrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	if i.links > 1 && i.mode&typeMask != typeDir && i.mode&typeMask != typeSock {
		w.names[i.number] = path
	}
	return w.typed(h, i)
}

// typed writes what depends on the kind of file.
func (w *walk) typed(h *tar.Header, i *inode) error {
	var body io.Reader
	var err error
	switch i.mode & typeMask {
	case typeDir:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(h.Name, "/")+"/"
	case typeReg:
		h.Typeflag, h.Size = tar.TypeReg, i.size
		if w.bytes += i.size; w.bytes > w.fs.limits.Bytes || w.bytes < 0 {
			return fmt.Errorf("more than %d bytes of files", w.fs.limits.Bytes)
		}
		body, err = w.fs.content(i)
	case typeLink:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = w.fs.target(i)
	case typeChr:
		h.Typeflag = tar.TypeChar
		h.Devmajor, h.Devminor = i.device()
	case typeBlk:
		h.Typeflag = tar.TypeBlock
		h.Devmajor, h.Devminor = i.device()
	case typeFIFO:
		h.Typeflag = tar.TypeFifo
	case typeSock:
		w.notes = append(w.notes, fmt.Sprintf("/%s: a socket, left out", h.Name))
		return nil
	default:
		return fmt.Errorf("mode %#o", i.mode)
	}
	if err != nil {
		return err
	}
	if err := w.tw.WriteHeader(h); err != nil || body == nil {
		return err
	}
	_, err = io.Copy(w.tw, body)
	return err
}

func (f *FS) target(i *inode) (string, error) {
	if i.size < 1 || i.size > maxLinkBytes {
		return "", fmt.Errorf("link of %d bytes", i.size)
	}
	if i.size < fastLink && i.flags&flagExtents == 0 {
		return string(i.block[:i.size]), nil
	}
	r, err := f.content(i)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

// device decodes the kernel's two ways of storing a device number.
func (i *inode) device() (major, minor int64) {
	if old := int64(le.Uint32(i.block[:])); old != 0 {
		return old >> 8 & 0xff, old & 0xff
	}
	d := int64(le.Uint32(i.block[4:]))
	return d >> 8 & 0xfff, d&0xff | d>>12&0xfff00
}
