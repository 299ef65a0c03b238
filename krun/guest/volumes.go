package guest

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// withVolumes puts the volumes' steps among those of the disk: their keys before
// the release is confirmed, after which the VM gets none.
func withVolumes(disk []step) (steps []step) {
	for _, s := range disk {
		switch s.name {
		case "confirming the release":
			steps = append(steps, step{"getting the volumes' keys", told((*boot).fetchVolumes)}, s)
		case "mounting the disk":
			steps = append(steps, s, step{"mounting the volumes", (*boot).mountVolumes})
		default:
			steps = append(steps, s)
		}
	}
	return steps
}

// fetchVolumes gets the volumes' keys, in the session that gave the DiskKey: the
// release is confirmed afterwards.
func (b *boot) fetchVolumes(ctx context.Context) error {
	for _, rule := range b.identity.Volumes {
		fresh := make([]byte, kbs.VolumeKeyBytes)
		if _, err := rand.Read(fresh); err != nil {
			return fmt.Errorf("drawing a volume's key: %w", err)
		}
		var g kbs.VolumeGrant
		err := b.inSession(ctx, "getting the key of volume "+rule.Name, func(s *kbs.Session) (err error) {
			g, err = s.OpenVolume(ctx, rule.Name, secret.New(fresh))
			return err
		})
		clear(fresh)
		if err != nil {
			return b.refused(fmt.Errorf("getting the key of volume %s: %w", rule.Name, err))
		}
		b.volumes = append(b.volumes, &openVolume{
			Name: rule.Name, Slot: rule.Slot, Token: g.Token, rule: rule, key: secret.New(g.Key), next: secret.New(g.Next), grant: g,
		})
	}
	return nil
}

// volumeClient asks about a volume that v is.
func (b *boot) volumeClient(v *openVolume) *kbs.VolumeClient {
	s := b.identity.Servers
	return &kbs.VolumeClient{
		Client:   &kbs.Client{URLs: s.URLs, PinnedKeys: s.PinnedKeys, Wait: s.Wait()},
		Workload: b.identity.WorkloadID, Volume: v.Name, Token: v.Token,
		OnRetry: func(why error, pause time.Duration) { b.console.line(fmt.Sprintf("volume %s: %v", v.Name, why)) },
	}
}

// mountVolumes opens each volume, or refuses, and shows it to the workload.
func (b *boot) mountVolumes(ctx context.Context) error {
	for _, v := range b.volumes {
		err := b.mountVolume(ctx, v)
		v.key.Wipe()
		v.next.Wipe()
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}

func (b *boot) mountVolume(ctx context.Context, v *openVolume) error {
	d, err := b.volumeDevice(v)
	if err != nil {
		return openly(err)
	}
	defer func() { d.vk.Wipe() }()
	found, err := b.findVolume(v, d)
	if err != nil {
		return openly(err)
	}
	next, err := b.stageVolume(ctx, v, found)
	if err != nil {
		return openly(err)
	}
	anew := found.what != kbs.VolumeGeneration // there is none, or the owner has given it up
	if anew {
		if err := b.makeVolume(v, d); err != nil {
			return err
		}
	}
	if next, err = b.writeVolume(v, found.generation, next); err != nil {
		return openly(fmt.Errorf("writing the generation: %w", err))
	}
	if anew { // from here on there is a volume
		d.header = krun.VolumeHeader{Workload: b.identity.WorkloadID, Name: v.Name, Cipher: d.geometry.CipherName(), Bytes: d.geometry.PlainBytes}
		if err := d.writeHeader(d.header); err != nil {
			return openly(err)
		}
	}
	resume := b.limit.suspend()
	err = b.volumeClient(v).Confirm(ctx, next, false)
	resume()
	if err != nil {
		return openly(b.refused(err))
	}
	if err := b.rekeyVolume(ctx, v, d); err != nil {
		return openly(fmt.Errorf("rekeying it: %w", err))
	}
	return b.showVolume(v)
}

// volumeDevice is where a volume is, and under which key.
type volumeDevice struct {
	areaBytes int64 // where its area begins on the disk, with the header
	header    krun.VolumeHeader
	place     luks.Place // of its data
	geometry  luks.Geometry
	vk        *luks.VolumeKey
}

func (b *boot) volumeDevice(v *openVolume) (*volumeDevice, error) {
	d := &volumeDevice{areaBytes: v.rule.Start(), place: luks.Place{Device: b.disk.path, StartBytes: v.rule.Start()}}
	var err error
	if d.geometry, err = v.rule.Geometry(b.identity.Disk.Geometry); err != nil {
		return nil, err
	}
	if end := d.place.StartBytes + d.geometry.TotalBytes(); b.disk.size < end {
		return nil, hint.With(fmt.Errorf("the disk has %d bytes, expected %d", b.disk.size, end), "run it with a runtime that knows volumes, and the volume file as it was")
	}
	d.vk, err = volumeKeyOf(v.key, d.geometry)
	return d, err
}

// volumeKeyOf derives the VolumeKey of a cipher from what the server keeps.
func volumeKeyOf(key secret.Bytes, g luks.Geometry) (*luks.VolumeKey, error) {
	if key.Len() != kbs.VolumeKeyBytes {
		return nil, fmt.Errorf("volume's key of %d bytes, expected %d", key.Len(), kbs.VolumeKeyBytes)
	}
	b, err := hkdf.Key(sha256.New, key.Reveal(), nil, "ccrun volume v1\x00"+g.CipherName(), g.VolumeKeyBytes)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return luks.NewVolumeKey(strings.NewReader(string(b)), g)
}

// stageVolume asks the server whether to go on with what was found.
func (b *boot) stageVolume(ctx context.Context, v *openVolume, found whatIsThere) (uint64, error) {
	defer b.limit.suspend()()
	next, err := b.volumeClient(v).Stage(ctx, found.what, found.generation)
	var p *kbs.ProblemError
	if errors.As(err, &p) && p.Code == kbs.CodeVolumeRolledBack {
		if found.why != nil {
			err = fmt.Errorf("%w (%w)", err, found.why)
		}
		err = &statusError{statusDenied, hint.With(err,
			"bring back the volume file as the last guest left it, or, to lose what is newer, `ccrun volume accept-rollback %s%s %s` with the owner's token", found.instead(), b.identity.WorkloadID, v.Name)}
	} else if err != nil {
		err = b.refused(err)
	}
	return next, err
}

// makeVolume makes an empty volume, with what the image has at its path. All of
// it is durable before anything says that it is there.
func (b *boot) makeVolume(v *openVolume, d *volumeDevice) error {
	if err := d.writeEmpty(); err != nil {
		return openly(err)
	}
	device, err := luks.Activate(d.geometry, d.vk, d.place, v.mappedName(), false)
	if err != nil {
		return openly(err)
	}
	err = errors.Join(makeBTRFS(device, d.geometry.PlainBytes, rand.Reader), luks.Deactivate(v.mappedName()))
	if err == nil {
		err = b.activateVolume(v, d)
	}
	if err != nil {
		return openly(err)
	}
	if err := os.Mkdir(v.data(), 0o755); err != nil {
		return openly(err)
	}
	return classed(classDirectory, fillVolume(newRoot, v.rule.Path, v.data()))
}

// showVolume lets the workload see the volume, at its path in the root.
func (b *boot) showVolume(v *openVolume) error {
	at, err := openInRoot(newRoot, v.rule.Path)
	if errors.Is(err, unix.ENOENT) {
		if err = makeInRoot(newRoot, v.rule.Path); err == nil {
			at, err = openInRoot(newRoot, v.rule.Path)
		}
	}
	if err != nil {
		return classed(classDirectory, err)
	}
	defer func() { _ = at.Close() }()
	target := fmt.Sprintf("/proc/self/fd/%d", at.Fd())
	if err := unix.Mount(v.data(), target, "", unix.MS_BIND, ""); err != nil {
		return classed(classDirectory, fmt.Errorf("mounting it: %w", err))
	}
	where, err := os.Readlink(target)
	if err != nil {
		return classed(classInternal, err)
	}
	b.mounts = append(b.mounts, where)
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_NODEV | unix.MS_NOSUID)
	if v.rule.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	return classed(classDirectory, unix.Mount("", where, "", flags, ""))
}

// closeVolumes gives each volume a generation that no guest has had it open with:
// a copy of it from before is refused from then on. Without a server it stays at
// the one it has, and so does the server's record.
func (b *boot) closeVolumes() (confirm func()) {
	staged := map[*openVolume]uint64{}
	ctx, cancel := context.WithTimeout(context.Background(), volumeCloseTimeout)
	defer cancel()
	for _, v := range b.volumes {
		if v.Generation == 0 || b.cutOff() {
			continue
		}
		c := b.volumeClient(v)
		c.Client.Wait = 0
		next, err := c.Stage(ctx, kbs.VolumeGeneration, v.Generation)
		if err == nil {
			next, err = b.writeVolume(v, v.Generation, next)
		}
		if err != nil {
			b.console.line(fmt.Sprintf("volume %s is closed without a generation of its own: %v", v.Name, err))
			continue
		}
		staged[v] = next
	}
	return func() {
		// Its own time: what the workload wrote last may have taken long to reach the disk.
		ctx, cancel := context.WithTimeout(context.Background(), volumeCloseTimeout)
		defer cancel()
		for v, generation := range staged {
			c := b.volumeClient(v)
			c.Client.Wait = 0
			if err := c.Confirm(ctx, generation, true); err != nil {
				b.console.line(fmt.Sprintf("volume %s: confirming that it is closed: %v", v.Name, err))
			}
		}
	}
}

// writeVolume gives the volume the next generation, or, if even that has no room,
// leaves it the one that it has, so that its guests can still make some.
func (b *boot) writeVolume(v *openVolume, has, next uint64) (uint64, error) {
	err := writeGeneration(v.dir(), generationRecord{1, b.identity.WorkloadID, v.Name, next})
	if errors.Is(err, errVolumeFull) && has != 0 {
		b.console.line(fmt.Sprintf("volume %s is full, and keeps generation %d: a copy of it from before is accepted as well", v.Name, has))
		next, err = has, nil
	}
	if err == nil {
		v.Generation = next
	}
	return next, err
}
