package guest

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
)

// fits refuses a half of the area that the volume is too large for: it would reach
// into what is another's.
func (d *volumeDevice) fits(half int) error {
	if need, has := d.geometry.TotalBytes(), int64(krun.VolumeStride/2); half == 1 && need > has {
		return hint.With(fmt.Errorf("rekeyed, it is in the second half of its area, which has %d bytes, and it needs %d", has, need),
			"rekey it once more with the image as it was, which takes it to the first half, where it can grow")
	}
	return nil
}

// rekeyVolume encrypts the mounted volume under its next key, if it is to have one:
// all of it is copied to the other half of its area, and nothing is written where it
// is. Then the server is told, which from then on gives that key alone: so it is the
// server's word, and not the disk's, which of the two halves is the volume. Power
// may go at any point: either all of the one is there or all of the other.
//
// A copy that does not succeed leaves the volume as it was, and its next guest to
// try again. Not to know what the server has heard ends this guest, for whatever
// the workload wrote would be in one half, and perhaps the other be opened next.
func (b *boot) rekeyVolume(ctx context.Context, v *openVolume, d *volumeDevice) error {
	if v.next.Len() == 0 {
		return nil
	}
	defer b.limit.suspend()()
	b.console.line(fmt.Sprintf("volume %s gets a new key: all of it is encrypted anew", v.Name))
	to, err := b.otherHalf(v, d)
	if err == nil {
		err = b.copyVolume(v, d, to)
	}
	if err != nil {
		b.console.line(fmt.Sprintf("volume %s keeps its key until its next start: %v", v.Name, err))
		return b.reopen(v, d)
	}
	if err := b.volumeClient(v).Rekeyed(ctx); err != nil {
		return b.refused(err)
	}
	d.vk.Wipe()
	half := 1 - d.header.Half
	*d = *to
	if err := d.settle(half); err != nil {
		return err
	}
	b.console.line(fmt.Sprintf("volume %s has a new key", v.Name))
	return nil
}

// otherHalf is where the copy will be.
func (b *boot) otherHalf(v *openVolume, d *volumeDevice) (*volumeDevice, error) {
	to := *d
	half := 1 - d.header.Half
	to.place.StartBytes = v.rule.Half(half)
	if need := to.place.StartBytes + to.geometry.TotalBytes(); b.disk.size < need {
		return nil, fmt.Errorf("the volume file has %d bytes, and %d are needed for a second copy", b.disk.size, need)
	}
	if err := to.fits(half); err != nil {
		return nil, errors.New("it is larger than half of its area, so that there is no room for a second copy")
	}
	var err error
	to.vk, err = volumeKeyOf(v.next, to.geometry)
	return &to, err
}

// reopen mounts what copyVolume has closed, if it has.
func (b *boot) reopen(v *openVolume, d *volumeDevice) error {
	if !isMounted(v.dir()) {
		generation, err := b.openExisting(v, d)
		if err != nil {
			return err
		}
		if generation != v.Generation {
			return fmt.Errorf("it has generation %d, expected %d", generation, v.Generation)
		}
	}
	return d.settle(d.header.Half) // of the copy nobody has heard
}

// copyVolume makes all that the volume has, as it is now, readable under the key of
// to, and has it mounted there: whole, as BTRFS's own checks say, and durable.
func (b *boot) copyVolume(v *openVolume, d, to *volumeDevice) error {
	used, err := btrfsUsed(v.dir(), d.geometry.PlainBytes)
	if err != nil {
		return fmt.Errorf("finding what is used of it: %w", err)
	}
	d.header.Rekeying = true
	if err := d.writeHeader(d.header); err != nil { // from here on either half may be the volume
		return err
	}
	to.header = d.header
	if err := to.writeEmpty(); err != nil {
		return err
	}
	if err := b.closeLast(); err != nil {
		return fmt.Errorf("closing it: %w", err)
	}
	if err := copyDevices(v, d, to, used); err != nil {
		return err
	}
	_ = btrfsControl(btrfsForgetDevice, "") // the copy is of the same file system
	generation, err := b.openExisting(v, to)
	if err != nil {
		return fmt.Errorf("opening the copy: %w", err)
	}
	if err = scrubBTRFS(v.dir()); err == nil && generation != v.Generation {
		err = fmt.Errorf("the copy has generation %d, expected %d", generation, v.Generation)
	}
	if err != nil {
		err = errors.Join(err, b.closeLast())
		_ = btrfsControl(btrfsForgetDevice, "")
	}
	return err
}

// copyDevices opens both, and copies.
func copyDevices(v *openVolume, d, to *volumeDevice, used []extent) (err error) {
	from, err := luks.Activate(d.geometry, d.vk, d.place, v.mappedName(), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, luks.Deactivate(v.mappedName())) }()
	next := v.mappedName() + "-next"
	into, err := luks.Activate(to.geometry, to.vk, to.place, next, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, luks.Deactivate(next)) }()
	return copyUsed(from, into, used)
}

// An extent is some bytes of a device.
type extent struct{ at, bytes int64 }

const (
	copyBytes   = 1 << 20
	copySector  = 4096
	copyPattern = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
)

// copyUsed copies the spans of one device to another, but for sectors that were
// never written: they have no tag, and so none in the copy.
func copyUsed(from, to string, used []extent) (err error) {
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf, err := unix.Mmap(-1, 0, copyBytes, unix.PROT_READ|unix.PROT_WRITE, copyPattern) // aligned
	if err != nil {
		return err
	}
	defer func() { clear(buf); _ = unix.Munmap(buf) }()
	for _, s := range used {
		for at := s.at; at < s.at+s.bytes; at += copyBytes {
			if err := copyReadable(in, out, buf[:min(copyBytes, s.at+s.bytes-at)], at); err != nil {
				return err
			}
		}
	}
	return out.Sync()
}

// device is what copyReadable needs of a file.
type device interface {
	ReadAt(b []byte, at int64) (int, error)
	WriteAt(b []byte, at int64) (int, error)
}

// copyReadable copies len(b) bytes, or those sectors of them that have a tag which
// is right. EILSEQ is how dm-crypt says that one has not; any other error is one.
func copyReadable(in, out device, b []byte, at int64) error {
	_, err := in.ReadAt(b, at)
	if errors.Is(err, unix.EILSEQ) {
		if len(b) <= copySector {
			return nil
		}
		half := len(b) / 2 / copySector * copySector
		if err := copyReadable(in, out, b[:half], at); err != nil {
			return err
		}
		return copyReadable(in, out, b[half:], at+int64(half))
	}
	if err != nil {
		return fmt.Errorf("reading it at %d: %w", at, err)
	}
	if _, err := out.WriteAt(b, at); err != nil {
		return fmt.Errorf("writing the copy at %d: %w", at, err)
	}
	return nil
}

func isMounted(dir string) bool {
	var here, above unix.Stat_t
	return unix.Stat(dir, &here) == nil && unix.Stat(dir+"/..", &above) == nil && here.Dev != above.Dev
}
