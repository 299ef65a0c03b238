package guest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/luks"
)

// whatIsThere is what is found in a volume's place.
type whatIsThere struct {
	what       string // one of kbs.Volume...
	generation uint64
	why        error // of what is damaged
}

// instead is the option with which the owner accepts it.
func (w whatIsThere) instead() string {
	if w.what == kbs.VolumeGeneration {
		return ""
	}
	return "--empty "
}

// findVolume looks what is there, and mounts it if it is the volume.
func (b *boot) findVolume(v *openVolume, d *volumeDevice) (whatIsThere, error) {
	h, used, err := d.readHeader()
	switch {
	case err != nil && used, used && (h.Workload != b.identity.WorkloadID || h.Name != v.Name):
		return whatIsThere{what: kbs.VolumeForeign, why: err}, nil
	case err != nil:
		return whatIsThere{}, err
	case !used:
		return whatIsThere{what: kbs.VolumeEmpty}, nil
	case h.Cipher != d.geometry.CipherName():
		return whatIsThere{}, hint.With(fmt.Errorf("it is of cipher %q, expected %s", h.Cipher, d.geometry.CipherName()), "build the image with --cipher %.20q", h.Cipher)
	case h.Bytes > v.rule.Bytes:
		return whatIsThere{}, hint.With(fmt.Errorf("it has %d bytes, which is more than the %d of the image: volumes do not shrink", h.Bytes, v.rule.Bytes), "build the image with size=%d", h.Bytes)
	}
	d.header = h
	generation, err := b.openHalves(v, d)
	if err == nil {
		return whatIsThere{what: kbs.VolumeGeneration, generation: generation}, nil
	}
	d.place.StartBytes = v.rule.Start() // of what takes its place
	if v.grant.Generation == 0 {        // the workload has never had it: a first use that ended early
		return whatIsThere{what: kbs.VolumeEmpty}, nil
	}
	return whatIsThere{what: kbs.VolumeDamaged, why: err}, nil
}

// openHalves opens the volume where the header says that it is, or, should power
// have gone while it was rekeyed, in the other half: its key tells. It may have
// grown.
func (b *boot) openHalves(v *openVolume, d *volumeDevice) (generation uint64, err error) {
	halves := []int{d.header.Half}
	if d.header.Rekeying {
		halves = append(halves, 1-d.header.Half)
	}
	for _, half := range halves {
		d.place.StartBytes = v.rule.Half(half)
		e := d.fits(half)
		if e == nil && d.header.Bytes < v.rule.Bytes {
			e = d.grow()
		}
		if e == nil {
			generation, e = b.openExisting(v, d)
		}
		if e == nil {
			if e = d.settle(half); e == nil {
				return generation, nil
			}
			e = errors.Join(e, b.closeLast())
		}
		err = errors.Join(err, e)
	}
	return 0, err
}

// settle has the header say where the volume is, and how large.
func (d *volumeDevice) settle(half int) error {
	h := d.header
	h.Half, h.Rekeying, h.Bytes = half, false, d.geometry.PlainBytes
	if h == d.header {
		return nil
	}
	d.header = h
	return d.writeHeader(h)
}

// openExisting mounts the volume and reads its generation. On failure nothing is
// left of it.
func (b *boot) openExisting(v *openVolume, d *volumeDevice) (generation uint64, err error) {
	if err := b.activateVolume(v, d); err != nil {
		return 0, err
	}
	if generation, err = readGeneration(v.dir(), b.identity.WorkloadID, v.Name); err == nil {
		return generation, nil
	}
	return 0, errors.Join(err, b.closeLast())
}

// activateVolume opens the device and mounts what is on it.
func (b *boot) activateVolume(v *openVolume, d *volumeDevice) error {
	device, err := luks.Activate(d.geometry, d.vk, d.place, v.mappedName(), false)
	if err != nil {
		return err
	}
	b.devices = append(b.devices, v.mappedName())
	if err := (mount{device, v.dir(), "btrfs", unix.MS_NODEV | unix.MS_NOSUID, ""}).do(); err != nil {
		b.devices = b.devices[:len(b.devices)-1]
		return errors.Join(err, luks.Deactivate(v.mappedName()))
	}
	b.mounts = append(b.mounts, v.dir())
	if err := growBTRFS(v.dir(), d.geometry.PlainBytes); err != nil {
		return errors.Join(fmt.Errorf("growing the file system: %w", err), b.closeLast())
	}
	return nil
}

// closeLast undoes activateVolume.
func (b *boot) closeLast() error {
	dir, name := b.mounts[len(b.mounts)-1], b.devices[len(b.devices)-1]
	b.mounts, b.devices = b.mounts[:len(b.mounts)-1], b.devices[:len(b.devices)-1]
	return errors.Join(unix.Unmount(dir, 0), luks.Deactivate(name))
}
