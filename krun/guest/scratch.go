package guest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
)

// The scratch area is what the host's disk has behind the image: a header, then
// what ScratchGeometry lays out. The header is scratchMagic and the area's
// volume key, wrapped under the image's; the rest of its scratchHeaderBytes is
// zero. All zeros is an area that nobody has used.
const (
	scratchMagic       = "ccrun scratch v1"
	scratchHeaderBytes = 4096
	// scratchName is the device-mapper name of the opened area.
	scratchName = "ccrun-scratch"
)

var (
	errNoScratch  = errors.New("the runtime added no scratch area to the disk")
	errNotScratch = errors.New("scratch header is not one that this image's guests write")
)

// scratch is an area on its way to being mounted. Its keys are drawn or
// unwrapped while the image's volume key is there, and wiped when it is mounted.
type scratch struct {
	place    luks.Place
	geometry luks.Geometry
	kept     *luks.VolumeKey // of the area as it is; nil: nobody has used it, or damaged says why not
	damaged  error
	fresh    *luks.VolumeKey // for the area that takes its place
	header   []byte          // which holds fresh, wrapped
}

func (s *scratch) wipe() {
	for _, k := range []*luks.VolumeKey{s.kept, s.fresh} {
		if k != nil {
			k.Wipe()
		}
	}
}

// area is where a scratch area should be, and of whom.
type area struct {
	place    luks.Place
	room     int64 // what the disk has from there on, in bytes
	rule     krun.Scratch
	image    luks.Geometry // whose cipher the area has
	identity kbs.Digest
}

// context ties a header to this image: all of the identity, with the size of the
// area, the rule for damage and the image's own key digest in it.
func (a area) context() []byte { return append([]byte(scratchMagic+"\x00"), a.identity[:]...) }

// readScratch looks at what the disk has behind the image. It draws a new key in
// any case: from getrandom(2), as the TEEKey is, which waits until the kernel has
// seeded its generator from the processor (docs/threat-model.md, row 8).
func readScratch(vk *luks.VolumeKey, a area) (*scratch, error) {
	s := &scratch{place: a.place}
	var err error
	if s.geometry, err = a.rule.Geometry(a.image); err != nil {
		return nil, err
	}
	switch {
	case a.room <= 0:
		return nil, errNoScratch
	case a.room < s.geometry.TotalBytes():
		return nil, hint.With(fmt.Errorf("scratch area of %d bytes, expected %d: it was cut", a.room, s.geometry.TotalBytes()),
			"remove the container, which loses what it wrote, and start another")
	}
	header, err := s.readHeader()
	if err != nil {
		return nil, err
	}
	if !allZero(header) {
		s.kept, s.damaged = openScratchHeader(header, vk, a.context(), s.geometry)
	}
	if s.fresh, err = luks.NewVolumeKey(rand.Reader, s.geometry); err != nil {
		return nil, err
	}
	s.header, err = sealScratchHeader(rand.Reader, vk, a.context(), s.fresh)
	return s, err
}

func (s *scratch) readHeader() ([]byte, error) {
	f, err := os.Open(s.place.Device)
	if err != nil {
		return nil, fmt.Errorf("opening the scratch area: %w", err)
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, scratchHeaderBytes)
	if _, err := f.ReadAt(b, s.place.StartBytes); err != nil {
		return nil, fmt.Errorf("reading the scratch header: %w", err)
	}
	return b, nil
}

func sealScratchHeader(rand io.Reader, vk *luks.VolumeKey, context []byte, key *luks.VolumeKey) ([]byte, error) {
	wrapped, err := vk.Wrap(rand, context, key)
	if err != nil {
		return nil, err
	}
	b := make([]byte, scratchHeaderBytes)
	copy(b[copy(b, scratchMagic):], wrapped)
	return b, nil
}

// openScratchHeader takes exactly what sealScratchHeader makes.
func openScratchHeader(b []byte, vk *luks.VolumeKey, context []byte, g luks.Geometry) (*luks.VolumeKey, error) {
	end := len(scratchMagic) + luks.WrappedBytes(g)
	if len(b) != scratchHeaderBytes || !bytes.HasPrefix(b, []byte(scratchMagic)) || !allZero(b[end:]) {
		return nil, errNotScratch
	}
	key, err := vk.Unwrap(context, b[len(scratchMagic):end], g)
	if errors.Is(err, luks.ErrWrapped) {
		err = errNotScratch
	}
	return key, err
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// writeEmpty makes the area one without a readable sector, for fresh.
func (s *scratch) writeEmpty() error {
	return s.writeAt(s.geometry.DataOffsetBytes, func(w io.Writer) error { return luks.WriteEmpty(w, s.geometry) })
}

// commit writes the header, from which on the area counts: everything else of it
// must be on the disk.
func (s *scratch) commit() error {
	return s.writeAt(0, func(w io.Writer) error {
		_, err := w.Write(s.header)
		return err
	})
}

func (s *scratch) writeAt(offset int64, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(s.place.Device, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening the scratch area: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(io.NewOffsetWriter(f, s.place.StartBytes+offset)); err != nil {
		return fmt.Errorf("writing the scratch area: %w", err)
	}
	return f.Sync()
}
