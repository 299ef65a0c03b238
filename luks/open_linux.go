package luks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
)

// Suffixes of the devices under the one a caller names. "_dif" is what
// cryptsetup calls the integrity device, too.
const (
	segmentSuffix   = "_seg"
	integritySuffix = "_dif"
)

// ErrNoCipher says that the kernel cannot encrypt as the geometry wants it.
var ErrNoCipher = errors.New("this kernel has no cipher")

// Place is where a disk begins: on a block device, StartBytes (a multiple of
// 4096) into it.
type Place struct {
	Device     string
	StartBytes int64
}

// Activate maps the disk at a place as g says and returns the path of the
// decrypted device, /dev/dm-N. Nothing is taken from the disk's
// header; the dm-integrity superblock must be the one g describes.
//
// The stack is linear (the segment, to the sector), dm-integrity (only with
// integrity), dm-crypt. It needs no udev. Deactivate undoes it.
func Activate(g Geometry, vk *VolumeKey, at Place, name string, readOnly bool) (path string, err error) {
	if err := g.Validate(); err != nil {
		return "", err
	}
	if err := vk.check(&g); err != nil {
		return "", err
	}
	if !validDeviceName(name) {
		return "", fmt.Errorf("device name %.70q, expected up to 64 letters, digits, '_', '.', '-'", name)
	}
	dev, err := checkDevice(&g, at)
	if err != nil {
		return "", err
	}
	dm, err := openDeviceMapper()
	if err != nil {
		return "", err
	}
	defer dm.close()
	var made []string // undone on failure; a device that was there before is not ours
	defer func() {
		if err != nil {
			dm.undo(made)
		}
	}()
	if dev, err = dm.create(name+segmentSuffix, linearTable(&g, devNumber(dev), at.StartBytes), readOnly); err != nil {
		return "", err
	}
	made = append(made, name+segmentSuffix)
	if g.Integrity != nil {
		if dev, err = dm.create(name+integritySuffix, integrityTable(&g, devNumber(dev), readOnly), readOnly); err != nil {
			return "", err
		}
		made = append(made, name+integritySuffix)
	}
	if dev, err = dm.createCrypt(name, &g, vk, devNumber(dev), readOnly); err != nil {
		return "", err
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(dev)), nil
}

// Deactivate removes what Activate made. The device must not be in use.
func Deactivate(name string) error {
	if !validDeviceName(name) {
		return fmt.Errorf("device name %.70q is not one of Activate's", name)
	}
	dm, err := openDeviceMapper()
	if err != nil {
		return err
	}
	defer dm.close()
	if err := dm.remove(name); err != nil {
		return err
	}
	if err := dm.remove(name + integritySuffix); err != nil && !errors.Is(err, unix.ENXIO) {
		return err // ENXIO: the disk has no integrity
	}
	return dm.remove(name + segmentSuffix)
}

// checkDevice makes sure that device is a block device large enough and, with
// integrity, that dm-integrity will find the layout of g. The host can still
// change the superblock afterwards; that garbles addresses, and what is read
// from a wrong address does not verify in dm-crypt.
func checkDevice(g *Geometry, at Place) (dev uint64, err error) {
	if at.StartBytes < 0 || at.StartBytes > maxPlainBytes || at.StartBytes%alignBytes != 0 {
		return 0, fmt.Errorf("disk at offset %d, expected a multiple of %d up to %d", at.StartBytes, alignBytes, int64(maxPlainBytes))
	}
	device := at.Device
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening disk: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("examining disk %s: %w", device, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, fmt.Errorf("%s is not a block device", device)
	}
	if err := checkContent(g, at, f); err != nil {
		return 0, fmt.Errorf("disk %s: %w", device, err)
	}
	return st.Rdev, nil
}

// checkContent is checkDevice for what is on the device.
func checkContent(g *Geometry, at Place, f io.ReadSeeker) error {
	if end, err := f.Seek(0, io.SeekEnd); err != nil || end < at.StartBytes+g.TotalBytes() {
		return errors.Join(fmt.Errorf("%d bytes, expected at least %d", end, at.StartBytes+g.TotalBytes()), err)
	}
	if g.Integrity == nil {
		return nil
	}
	want, got := g.superblock()[:superblockUsedBytes], make([]byte, superblockUsedBytes)
	if _, err := f.Seek(at.StartBytes+g.DataOffsetBytes, io.SeekStart); err != nil {
		return fmt.Errorf("reading dm-integrity superblock: %w", err)
	}
	if _, err := io.ReadFull(f, got); err != nil {
		return fmt.Errorf("reading dm-integrity superblock: %w", err)
	}
	got[superblockBitmapOffset] = want[superblockBitmapOffset]
	if !bytes.Equal(got, want) {
		return fmt.Errorf("dm-integrity superblock %x, expected %x: the disk is damaged, another one, or was opened writable by cryptsetup, which takes a footer for data", got, want)
	}
	return nil
}

func devNumber(dev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}

// createCrypt makes the dm-crypt device. The key goes through a kernel
// keyring of this thread alone, where nothing can read it back: from a key in
// the table, "dmsetup table --showkeys" in the guest could. A kernel without
// keyrings gets it in the table.
func (d *deviceMapper) createCrypt(name string, g *Geometry, vk *VolumeKey, dev string, readOnly bool) (uint64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	description := "ccrun:" + name
	id, err := unix.AddKey("logon", description, vk.b, unix.KEY_SPEC_THREAD_KEYRING)
	switch {
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENODEV):
		key := hexKey(vk)
		defer clear(key)
		return d.createWith(name, g, cryptTable(g, dev, key), readOnly)
	case err != nil:
		return 0, fmt.Errorf("handing the volume key to the kernel: %w", err)
	}
	defer func() { // dm-crypt has taken its copy
		_, _ = unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}()
	return d.createWith(name, g, cryptTable(g, dev, keyringKey(vk, description)), readOnly)
}

// createWith is create with a table of g's cipher, of which a kernel that lacks
// it says no more than ENOENT.
func (d *deviceMapper) createWith(name string, g *Geometry, t target, readOnly bool) (uint64, error) {
	dev, err := d.create(name, t, readOnly)
	return dev, withoutCipher(g, err)
}

// withoutCipher tells a kernel without g's cipher from other failures.
func withoutCipher(g *Geometry, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w %s: %w", ErrNoCipher, g.Cipher, err)
	}
	return err
}

func validDeviceName(s string) bool {
	return bounded.Name(s, 64, bounded.Letters+bounded.Digits, bounded.Letters+bounded.Digits+"_.-")
}
