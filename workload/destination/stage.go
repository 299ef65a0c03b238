package destination

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	drivers "github.com/containers/storage/drivers"
	"github.com/opencontainers/go-digest"
	tarsplit "github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// stagedLayer is a layer's files in a directory, and all that it takes to
// make the same tar stream of them again.
type stagedLayer struct {
	dir   string
	info  blob.Info
	split *os.File // tar-split: the stream without the files' contents
}

// output is the layer in the form that the store adopts it.
func (s *stagedLayer) output() *drivers.DriverWithDifferOutput {
	split := s.split
	s.split = nil // closed by who gets it
	return &drivers.DriverWithDifferOutput{
		Target: s.dir, Size: s.info.Size, UIDs: []uint32{0}, GIDs: []uint32{0},
		UncompressedDigest: s.info.Digest, CompressedDigest: s.info.Digest, TarSplit: split,
	}
}

// Close leaves the files alone.
func (s *stagedLayer) Close() error {
	if s.split == nil {
		return nil
	}
	return s.split.Close()
}

// stageLayer unpacks the layer of a workload image into dir: plain files and
// directories of root, all at the top.
func stageLayer(r io.Reader, dir string) (*stagedLayer, error) {
	split, err := scratch.UnnamedFile(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	st := &stager{dir: dir, in: &recorder{r: r}, sum: sha256.New(), pack: tarsplit.NewJSONPacker(split)}
	if err := st.run(); err != nil {
		return nil, errors.Join(err, split.Close())
	}
	return &stagedLayer{dir: dir, split: split, info: blob.Info{Digest: digest.NewDigest(digest.SHA256, st.sum), Size: st.size}}, nil
}

// stager takes a tar stream apart. sum sees every byte, pack every byte that
// is not content.
type stager struct {
	dir  string
	in   *recorder
	sum  hash.Hash
	pack tarsplit.Packer
	size int64
	dirs []*tar.Header
}

// recorder remembers what is read through it while on.
type recorder struct {
	r   io.Reader
	on  bool
	buf []byte
}

// maxSegment bounds the headers and padding between two files.
const maxSegment = 1 << 20

func (c *recorder) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.on {
		if len(c.buf)+n > maxSegment {
			return 0, fmt.Errorf("more than %d bytes between two files of the layer", maxSegment)
		}
		c.buf = append(c.buf, p[:n]...)
	}
	return n, err
}

func (s *stager) run() error {
	tr := tar.NewReader(s.in)
	for {
		s.in.on = true
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := s.segment(); err != nil {
			return err
		}
		if err := s.entry(h, tr); err != nil {
			return fmt.Errorf("unpacking %q: %w", h.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, s.in); err != nil { // after the end marker
		return err
	}
	if err := s.segment(); err != nil {
		return err
	}
	for _, h := range s.dirs { // files made in them have changed them
		if err := s.setTime(h); err != nil {
			return err
		}
	}
	return nil
}

// segment packs what was recorded.
func (s *stager) segment() error {
	b := s.in.buf
	s.in.on, s.in.buf = false, b[:0]
	s.size += int64(len(b))
	s.sum.Write(b)
	if len(b) == 0 {
		return nil
	}
	_, err := s.pack.AddEntry(tarsplit.Entry{Type: tarsplit.SegmentType, Payload: b})
	return err
}

func (s *stager) entry(h *tar.Header, content io.Reader) error {
	name := strings.TrimSuffix(h.Name, "/")
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') || h.Uid != 0 || h.Gid != 0 {
		return errors.New("expected a file of root at the top of the layer")
	}
	e := tarsplit.Entry{Type: tarsplit.FileType, Size: h.Size}
	e.SetName(h.Name)
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		s.dirs = append(s.dirs, h)
		if err = os.Mkdir(s.path(h), 0o700); err == nil {
			err = os.Chmod(s.path(h), h.FileInfo().Mode()&fileModeBits)
		}
	case tar.TypeReg:
		e.Payload, err = s.file(h, content)
	default:
		err = fmt.Errorf("entry of type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	_, err = s.pack.AddEntry(e)
	return err
}

const fileModeBits = os.ModePerm | os.ModeSticky | os.ModeSetuid | os.ModeSetgid

func (s *stager) path(h *tar.Header) string { return filepath.Join(s.dir, filepath.Base(h.Name)) }

// file writes one file and returns its checksum as tar-split wants it.
func (s *stager) file(h *tar.Header, content io.Reader) ([]byte, error) {
	f, err := os.OpenFile(s.path(h), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	crc := newISOCRC()
	w := scratch.NewDirectWriter(f, 0, s.sum, crc)
	_, err = w.ReadFrom(content)
	n, werr := w.Finish()
	if err = errors.Join(werr, err); err == nil {
		err = f.Chmod(h.FileInfo().Mode() & fileModeBits)
	}
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	s.size += n
	if n == 0 {
		return nil, s.setTime(h)
	}
	return crc.Sum(nil), s.setTime(h)
}

func (s *stager) setTime(h *tar.Header) error {
	return os.Chtimes(s.path(h), time.Time{}, h.ModTime)
}
