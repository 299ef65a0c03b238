package firmware

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/ccrun/ccrun/krun"
)

// maxUnpackedBytes bounds what an initrd unpacks to: an agent of 12 MiB, the
// modules of a distribution kernel, and room; a gzip bomb ends here.
const maxUnpackedBytes = 128 << 20

// ErrNoIdentity reports an initrd without an identity segment.
var ErrNoIdentity = errors.New("initrd holds no " + krun.IdentityPath)

// InspectInitrd lists what the kernel would unpack from b, in order, and
// decodes the identity in it. Anything ambiguous is refused: a file that
// appears twice, links and paths through them, bytes after an archive that are
// not another one. Without identity the entries come with ErrNoIdentity.
func InspectInitrd(b []byte) (*krun.Identity, []Entry, error) {
	if len(b) > MaxInitrdBytes {
		return nil, nil, fmt.Errorf("initrd of %d bytes, at most %d allowed", len(b), MaxInitrdBytes)
	}
	in := inspector{left: maxUnpackedBytes, seen: map[string]uint32{}}
	for off := 0; off < len(b); {
		n, err := in.member(b, off)
		if err != nil {
			return nil, nil, fmt.Errorf("reading initrd at offset %d: %w", off, err)
		}
		off += n
	}
	if in.identity == nil {
		return nil, in.entries, ErrNoIdentity
	}
	id, err := krun.DecodeIdentity(in.identity)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", krun.IdentityPath, err)
	}
	return id, in.entries, nil
}

type inspector struct {
	left     int64
	seen     map[string]uint32 // path -> type bits
	entries  []Entry
	archives int
	identity []byte
}

// member reads padding or one archive at b[off:] and returns its length.
func (in *inspector) member(b []byte, off int) (int, error) {
	rest := b[off:]
	switch {
	case rest[0] == 0:
		n := 0
		for n < len(rest) && rest[n] == 0 {
			n++
		}
		return n, nil
	case bytes.HasPrefix(rest, []byte{0x1f, 0x8b}):
		return in.gzipMember(rest)
	case bytes.HasPrefix(rest, []byte(newcMagic)) && off%4 == 0:
		src := bytes.NewReader(rest)
		err := in.archive(src)
		return len(rest) - src.Len(), err
	}
	return 0, fmt.Errorf("bytes %x, expected zeros, gzip or an aligned newc archive", rest[:min(6, len(rest))])
}

func (in *inspector) gzipMember(rest []byte) (int, error) {
	src := bytes.NewReader(rest)
	z, err := gzip.NewReader(src)
	if err != nil {
		return 0, err
	}
	z.Multistream(false)
	// A compressed member may hold several archives with zeros between.
	r := bufio.NewReader(z)
	for {
		c, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return len(rest) - src.Len(), nil
		}
		if err != nil {
			return 0, err
		}
		if in.left--; in.left < 0 {
			return 0, errTooBig
		}
		if c == 0 {
			continue
		}
		if err := r.UnreadByte(); err != nil {
			return 0, err
		}
		if err := in.archive(r); err != nil {
			return 0, err
		}
	}
}

var errTooBig = fmt.Errorf("initrd unpacks to more than %d bytes", maxUnpackedBytes)

func (in *inspector) archive(r io.Reader) error {
	c := &reader{r: r}
	defer func() { in.archives++ }()
	for {
		before := c.pos
		e, err := c.next()
		if errors.Is(err, io.EOF) {
			in.left -= int64(c.pos - before)
			return nil
		}
		if err != nil {
			return err
		}
		e.Archive = in.archives
		if in.left -= int64(c.pos-before) + int64(e.SizeBytes); in.left < 0 || len(in.entries) == maxEntries {
			return errTooBig
		}
		if err := in.entry(c, e); err != nil {
			return err
		}
	}
}

func (in *inspector) entry(c *reader, e Entry) error {
	if err := in.check(e); err != nil {
		return err
	}
	in.entries = append(in.entries, e)
	if e.Name != krun.IdentityPath {
		return c.data(io.Discard, e.SizeBytes)
	}
	if e.Mode&typeMask != typeRegular || e.SizeBytes > krun.MaxIdentityBytes {
		return fmt.Errorf("%s is not a regular file of at most %d bytes", e.Name, krun.MaxIdentityBytes)
	}
	var buf bytes.Buffer
	err := c.data(&buf, e.SizeBytes)
	in.identity = buf.Bytes()
	return err
}

// check refuses entries that would make the list differ from what the kernel
// unpacks: a later file replaces an earlier one, a link leads elsewhere.
func (in *inspector) check(e Entry) error {
	kind := e.Mode & typeMask
	switch kind {
	case typeRegular, typeCharacter, typeBlock, typeSymlink:
		if _, twice := in.seen[e.Name]; twice {
			return fmt.Errorf("%s appears twice", e.Name)
		}
	case typeDirectory:
		if k, twice := in.seen[e.Name]; twice && k != typeDirectory {
			return fmt.Errorf("%s appears as directory and file", e.Name)
		}
	default:
		return fmt.Errorf("%s has mode %#o, expected a file, directory, link or device", e.Name, e.Mode)
	}
	for dir := path.Dir(e.Name); dir != "/"; dir = path.Dir(dir) {
		if k, ok := in.seen[dir]; ok && k != typeDirectory {
			return fmt.Errorf("%s lies under %s, which is no directory", e.Name, dir)
		}
	}
	if kind == typeSymlink && strings.HasPrefix(krun.IdentityPath, e.Name+"/") {
		return fmt.Errorf("%s is a link on the way to %s", e.Name, krun.IdentityPath)
	}
	in.seen[e.Name] = kind
	return nil
}
