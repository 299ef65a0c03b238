package rootfs

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
)

// Scan reads one uncompressed layer to its end (also past the end-of-archive
// marker, so that a verifying reader gets to see all of it) and returns its
// index. In an io.ReadSeeker it skips contents, which then nobody has verified.
func Scan(ctx context.Context, r io.Reader, limits Limits) (*Index, error) {
	b := newBudget(limits)
	idx, err := scan(ctx, r, b)
	if err != nil {
		b.giveBack()
		return nil, err
	}
	return idx, nil
}

func scan(ctx context.Context, r io.Reader, b *budget) (*Index, error) {
	s := newSource(ctx, r, b.limits.LayerBytes)
	idx := &Index{}
	for {
		hdr, err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		e, err := scanEntry(s, hdr, b, idx)
		if err != nil {
			return nil, &EntryError{Path: hdr.Name, Err: err}
		}
		if n := b.take(ofMeta, idx.add(&e)); n > b.limits.MetaBytes {
			return nil, &EntryError{Path: hdr.Name, Err: exceeded("bytes of names and attributes", b.limits.MetaBytes, n)}
		}
	}
	idx.buf, idx.last = nil, ""
	if err := s.drain(); err != nil {
		return nil, err
	}
	idx.fingerprint = s.sum()
	return idx, nil
}

func scanEntry(s *source, hdr *tar.Header, b *budget, idx *Index) (entry, error) {
	if n := b.take(ofEntries, 1); n > int64(b.limits.Entries) {
		return entry{}, exceeded("entries", b.limits.Entries, n)
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return entry{typeflag: hdr.Typeflag}, nil
	}
	e, err := convert(hdr, b.limits)
	if err != nil {
		return entry{}, err
	}
	xattrs, err := xattrsOf(hdr, b.limits, idx)
	if err != nil {
		return entry{}, err
	}
	if len(xattrs) > 0 {
		e.rareFields().xattrs = xattrs
	}
	if e.isWhiteoutDevice() {
		idx.warn(fmt.Sprintf("%q: leaving out the character device 0:0: overlayfs takes it for a deletion", shorten(hdr.Name)))
	}
	if e.typeflag != tar.TypeReg {
		return e, nil
	}
	if n := b.take(ofBytes, e.size); e.size > maxSizeBytes || n > b.limits.TotalBytes || n < 0 {
		return entry{}, exceeded("bytes of file content", b.limits.TotalBytes, n)
	}
	if isSparse(hdr) {
		e.rareFields().sparse = true
		e.rare.data, err = dataRanges(s.tr, e.size)
	}
	return e, err
}

// isSparse tells whether the archive stored the file with holes.
func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// convert checks a header and takes over what merging needs.
func convert(hdr *tar.Header, l Limits) (entry, error) {
	e := entry{typeflag: hdr.Typeflag, perm: uint16(hdr.Mode & 0o7777), size: hdr.Size,
		sec: hdr.ModTime.Unix(), nsec: uint32(hdr.ModTime.Nanosecond())}
	var err error
	if e.name, err = cleanPath(hdr.Name, l); err != nil {
		return e, err
	}
	if e.uid, err = id32("uid", int64(hdr.Uid)); err != nil {
		return e, err
	}
	if e.gid, err = id32("gid", int64(hdr.Gid)); err != nil {
		return e, err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		e.typeflag = tar.TypeReg
	case tar.TypeDir, tar.TypeFifo:
	case tar.TypeChar, tar.TypeBlock:
		// Linux has 12 bits of major and 20 bits of minor number.
		if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
			return e, fmt.Errorf("device %d:%d is out of Linux's range (4095:1048575)", hdr.Devmajor, hdr.Devminor)
		}
		e.rare = &rare{major: uint32(hdr.Devmajor), minor: uint32(hdr.Devminor)}
	case tar.TypeLink:
		e.rare = &rare{}
		e.rare.link, err = cleanPath(hdr.Linkname, l)
	case tar.TypeSymlink:
		e.rare = &rare{link: hdr.Linkname}
		if n := len(hdr.Linkname); n == 0 || n > l.PathBytes || strings.IndexByte(hdr.Linkname, 0) >= 0 {
			err = fmt.Errorf("symlink target must have 1 to %d bytes and no NUL, got %d", l.PathBytes, n)
		}
	default:
		err = fmt.Errorf("unknown tar entry type %q", hdr.Typeflag)
	}
	return e, err
}

func id32(what string, v int64) (uint32, error) {
	if v < 0 && v >= math.MinInt32 {
		v = int64(uint32(v)) // some archivers write 32 bits with a sign: -2 is 4294967294
	}
	// The highest value means "no change" to chown(2) and is no owner.
	if v < 0 || v >= math.MaxUint32 {
		return 0, fmt.Errorf("%s must be from 0 to 4294967294, got %d", what, v)
	}
	return uint32(v), nil
}

// cleanPath makes a name absolute in the tree; ".." stops at the root.
func cleanPath(name string, l Limits) (string, error) {
	if len(name) > 4*l.PathBytes {
		return "", exceeded("path bytes", l.PathBytes, len(name))
	}
	p := path.Clean("/" + name)
	if len(p)-1 > l.PathBytes {
		return "", exceeded("path bytes", l.PathBytes, len(p)-1)
	}
	if strings.IndexByte(p, 0) >= 0 {
		return "", errors.New("name holds a NUL byte")
	}
	for rest := p[1:]; rest != ""; {
		var comp string
		comp, rest, _ = strings.Cut(rest, "/")
		if len(comp) > maxNameBytes {
			return "", exceeded("bytes of one name", maxNameBytes, len(comp))
		}
	}
	return p, nil
}

// source reads one layer's headers, bounded, cancellable and fingerprinted.
type source struct {
	ctx   context.Context
	tr    *tar.Reader
	raw   io.Reader
	hash  hash.Hash
	count int32
	frame []byte
}

func newSource(ctx context.Context, r io.Reader, limit int64) *source {
	if file, ok := r.(io.ReadSeeker); ok {
		raw := &seekReader{ctx: ctx, r: file, limit: limit}
		return &source{ctx: ctx, tr: tar.NewReader(raw), raw: raw, hash: sha256.New()}
	}
	raw := &boundedReader{ctx: ctx, r: r, left: limit, limit: limit}
	br := bufio.NewReaderSize(raw, 256<<10)
	return &source{ctx: ctx, tr: tar.NewReader(br), raw: br, hash: sha256.New()}
}

func (s *source) next() (*tar.Header, error) {
	hdr, err := s.tr.Next()
	if errors.Is(err, tar.ErrInsecurePath) {
		err = nil // cleanPath keeps such names inside
	}
	if err != nil {
		if err == io.EOF {
			return nil, err
		}
		return nil, fmt.Errorf("reading tar header after %d entries: %w", s.count, err)
	}
	if s.count == math.MaxInt32 {
		return nil, exceeded("entries", math.MaxInt32, "more")
	}
	s.count++
	s.note(hdr)
	return hdr, nil
}

// note adds a header to the fingerprint, each field framed by its length.
func (s *source) note(hdr *tar.Header) {
	b := s.frame[:0]
	for _, str := range []string{hdr.Name, hdr.Linkname} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(str)))
		b = append(b, str...)
	}
	for _, v := range []int64{int64(hdr.Typeflag), hdr.Size, hdr.Mode, int64(hdr.Uid), int64(hdr.Gid),
		hdr.ModTime.UnixNano(), hdr.Devmajor, hdr.Devminor, int64(len(hdr.PAXRecords))} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	for _, key := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		for _, str := range []string{key, hdr.PAXRecords[key]} {
			b = binary.LittleEndian.AppendUint64(b, uint64(len(str)))
			b = append(b, str...)
		}
	}
	s.hash.Write(b)
	s.frame = b
}

func (s *source) sum() [32]byte { return [32]byte(s.hash.Sum(nil)) }

// drain reads what follows the archive's end.
func (s *source) drain() error {
	if _, err := io.Copy(io.Discard, s.raw); err != nil {
		return fmt.Errorf("reading past the end of the tar: %w", err)
	}
	return nil
}

type boundedReader struct {
	ctx         context.Context
	r           io.Reader
	left, limit int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, exceeded("bytes of one layer's tar", b.limit, "more")
	}
	return n, err
}
