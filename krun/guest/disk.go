package guest

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/sealedlog"
	"github.com/ccrun/ccrun/luks"
)

// disk is what the agent keeps of the host's disk: read once, before
// anything is decided, into memory that the host cannot reach.
type disk struct {
	path         string
	size         int64 // of the device: the image, and what is behind it
	footerDigest kbs.Digest
	header       *luks.Header
}

// findDisk waits for a virtio disk that has a footer and a LUKS2 header. The
// host may offer several, in any order, and fill them as it likes: the volume
// key's digest shows whether the one that was taken is right.
func (b *boot) findDisk(ctx context.Context) error {
	var paths []string
	err := waitFor(ctx, deviceTimeout, func() (err error) {
		paths, err = virtioDisks("/sys/block")
		return err
	})
	if err == nil {
		b.disk, err = chooseDisk(paths, b.identity.Disk.Geometry.UUID, func(path string) (*disk, error) {
			return openDisk(path, b.identity.Disk.ImageBytes)
		})
	}
	return hint.With(err, "check that the VM got the image's disk.img, unchanged")
}

// chooseDisk is the disk that says it is the image's, wherever it is among the
// host's. If none does it is the first that could be: the server then says of
// which image it is not.
func chooseDisk(paths []string, uuid string, open func(path string) (*disk, error)) (*disk, error) {
	var other *disk
	var all []error
	for _, path := range paths {
		d, err := open(path)
		switch {
		case err != nil:
			all = append(all, fmt.Errorf("%s: %w", path, err))
		case d.header.UUID() == uuid:
			return d, nil
		case other == nil:
			other = d
		}
	}
	if other != nil {
		return other, nil
	}
	return nil, cmp.Or(errors.Join(all...), errNoDisk)
}

var errNoDisk = errors.New("no virtio disk")

// virtioDisks lists the virtio block devices, in order of their names.
func virtioDisks(class string) ([]string, error) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "vd") {
			paths = append(paths, filepath.Join("/dev", e.Name()))
		}
	}
	if paths == nil {
		return nil, errNoDisk
	}
	return paths, nil
}

func openDisk(path string, imageBytes int64) (*disk, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("reading the disk's size: %w", err)
	}
	return readDisk(f, path, size, imageBytes)
}

// readDisk reads footer and header once each. Where the image ends, the identity
// says, not the host's device.
func readDisk(r io.ReaderAt, path string, size, imageBytes int64) (*disk, error) {
	if imageBytes <= 0 || size < imageBytes {
		return nil, fmt.Errorf("disk of %d bytes, expected an image of %d", size, imageBytes)
	}
	footer, err := krun.ReadFooter(r, imageBytes)
	if err != nil {
		return nil, err
	}
	header, err := luks.ReadOwnHeader(r, imageBytes)
	if err != nil {
		return nil, err
	}
	if err := enoughMemory(header.UnlockBytes(), freeMemory()); err != nil {
		return nil, err
	}
	return &disk{path: path, size: size, footerDigest: kbs.Sum384(footer.JSON), header: header}, nil
}

// room is what the disk has for scratch: before the volumes, if there are any.
func (d *disk) room(id *krun.Identity) int64 {
	end := d.size
	if len(id.Volumes) > 0 {
		end = min(end, krun.VolumesOffset)
	}
	return end - id.Disk.ImageBytes
}

// unlockDisk opens the keyslot with the DiskKey, proves that the volume key is
// the identity's, and sets the disk up by the identity's geometry alone: the
// header could name a null cipher (CVE-2025-59054, CVE-2025-58356).
func (b *boot) unlockDisk(ctx context.Context) error {
	vk, err := b.volumeKey, error(nil)
	if vk == nil {
		vk, err = b.disk.header.UnlockContext(ctx, b.diskKey)
	}
	b.diskKey.Wipe()
	if errors.Is(err, luks.ErrWrongPassphrase) {
		err = hint.With(err, "the released disk key is not this disk's; register the image that is being run")
	}
	if err != nil {
		return err
	}
	defer vk.Wipe()
	b.console.timing("opened keyslot")
	got, want := vk.Digest(), b.identity.Disk.VolumeKeyDigest
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return hint.With(fmt.Errorf("volume key has another digest than %s", want),
			"the disk is not the one the image was built with; pull the image again")
	}
	b.processKey = vk.Subkey(krun.ProcessKeyPurpose)
	if b.identity.Logs != nil {
		b.logSeed = vk.Subkey(sealedlog.SigningPurpose)
	}
	if err = b.activateImage(b.identity.Disk.Geometry, vk, b.disk.path); err != nil {
		return err
	}
	b.say = b.console.line
	return b.openScratch(vk, area{
		place: luks.Place{Device: b.disk.path, StartBytes: b.identity.Disk.ImageBytes},
		room:  b.disk.room(b.identity), rule: b.identity.Scratch,
		image: b.identity.Disk.Geometry, identity: b.identityDigest,
	})
}

// mountDisk mounts the opened image at newRoot, and where its guests write, always
// without devices: the workload's are its private /dev's. Set-user-ID programs
// stay, as in any container; the capability bounding set limits them.
func (b *boot) mountDisk(context.Context) error {
	return b.mount(b.identity.Disk.Filesystem, b.identity.Scratch)
}

// closeDisk undoes as much of this as there is.
func (b *boot) closeDisk() {
	afterwards := func() {}
	if b.closing != nil && b.workloadRan {
		afterwards = b.closing()
	}
	b.close(b.console.timing)
	afterwards()
}
