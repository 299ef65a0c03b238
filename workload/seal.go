package workload

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// sealed is a workload's keys and all that is measured of it.
type sealed struct {
	diskKey   secret.Bytes
	kdf       luks.KDF
	volumeKey *luks.VolumeKey
	geometry  luks.Geometry
	classic   bool // LUKS1, and no identity

	identity  []byte // canonical
	agent     []byte // its segment of initrd
	initrd    []byte
	teeConfig []byte
	footer    []byte // with its padding, as it follows the LUKS part
	// launchBytes is how long a launch makes disk.img; 0: as it is.
	launchBytes int64
	volumes     *krun.VolumeHints // nil: it has none
	profile     string            // krun.Hints'; empty: no machine of QEMU's with a TEE
	reg         kbs.Registration
	source      string // manifest digest; for the owner's record
}

// wipe overwrites the keys.
func (s *sealed) wipe() {
	s.diskKey.Wipe()
	if s.volumeKey != nil {
		s.volumeKey.Wipe()
	}
}

// drawKeys draws the keys of a disk that holds plainBytes.
func drawKeys(random randomness, o *DiskOptions, plainBytes int64) (*sealed, error) {
	r, err := random.bytes("disk UUID")
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewRandomFromReader(r)
	if err != nil {
		return nil, fmt.Errorf("drawing disk UUID: %w", err)
	}
	s := &sealed{}
	if s.geometry, err = luks.NewGeometry(id.String(), plainBytes, o.Cipher, !o.NoIntegrity); err != nil {
		return nil, fmt.Errorf("laying out disk: %w", err)
	}
	if r, err = random.bytes("volume key"); err != nil {
		return nil, err
	}
	if s.volumeKey, err = luks.NewVolumeKey(r, s.geometry); err != nil {
		return nil, err
	}
	if o.Passphrase.Len() > 0 {
		s.diskKey = secret.New(bytes.Clone(o.Passphrase.Reveal()))
		s.kdf = kdfFor(s.diskKey)
		return s, nil
	}
	s.kdf = luks.FastKDF()
	if s.diskKey, err = newDiskKey(random.rand); err != nil {
		s.wipe()
		return nil, err
	}
	return s, nil
}

// newDiskKey draws 256 bits, as hex digits.
func newDiskKey(rand io.Reader) (secret.Bytes, error) {
	var raw [32]byte
	defer clear(raw[:])
	if _, err := io.ReadFull(rand, raw[:]); err != nil {
		return secret.Bytes{}, fmt.Errorf("drawing disk key: %w", err)
	}
	return secret.New(hex.AppendEncode(nil, raw[:])), nil
}

// kdfFor stretches what a person may have made up, and leaves alone what has
// the form of our own random keys.
func kdfFor(passphrase secret.Bytes) luks.KDF {
	if isRandomKey(passphrase.Reveal()) {
		return luks.FastKDF()
	}
	return luks.PassphraseKDF()
}

// identify, after configure, makes the identity of the disk, of the process on it and of what
// else is in id, and the initrd that carries it.
func (s *sealed) identify(id krun.Identity, process []byte, o *DiskOptions, agent []byte) error {
	processKey := s.volumeKey.Subkey(krun.ProcessKeyPurpose)
	defer processKey.Wipe()
	id.Version, id.ProcessDigest = krun.IdentityVersion, krun.ProcessDigest(processKey, process)
	id.Disk = krun.DiskIdentity{Geometry: s.geometry, VolumeKeyDigest: s.volumeKey.Digest(), Filesystem: o.Filesystem, ImageBytes: s.diskBytes()}
	id.Scratch, id.Volumes = o.Scratch, o.Volumes
	var err error
	if s.identity, err = id.Encode(); err != nil {
		return fmt.Errorf("making identity: %w", err)
	}
	if id.Scratch.Kind == krun.ScratchDisk {
		if s.launchBytes, err = id.Disk.LaunchBytes(id.Scratch); err != nil {
			return err
		}
	}
	if s.volumes, err = volumeHints(&id); err != nil {
		return err
	}
	s.agent = agent
	s.initrd, err = composeInitrd(agent, s.identity)
	return err
}

// volumeHints are nil for a workload without volumes.
func volumeHints(id *krun.Identity) (*krun.VolumeHints, error) {
	if len(id.Volumes) == 0 {
		return nil, nil
	}
	n, err := krun.VolumeFileBytes(id.Volumes, id.Disk.Geometry)
	if err != nil {
		return nil, err
	}
	h := &krun.VolumeHints{Workload: id.WorkloadID, FileBytes: n}
	for _, v := range id.Volumes {
		h.Names = append(h.Names, v.Name)
	}
	return h, nil
}

func composeInitrd(agent, identity []byte) ([]byte, error) { return appendInitrd(nil, agent, identity) }

func appendInitrd(to, agent, identity []byte) ([]byte, error) {
	segment, err := firmware.IdentitySegment(identity)
	if err != nil {
		return nil, fmt.Errorf("making identity segment: %w", err)
	}
	initrd, err := firmware.AppendInitrd(to, agent, segment)
	if err != nil {
		return nil, fmt.Errorf("composing initrd: %w", err)
	}
	return initrd, nil
}

// boot is what the server keeps of what the workload boots.
func (s *sealed) boot() *kbs.Boot {
	return &kbs.Boot{Identity: s.identity, Agent: kbs.Sum384(s.agent), Initrd: kbs.Sum384(s.initrd)}
}

// configure makes what libkrun reads, which is also the disk's footer.
func (s *sealed) configure(workloadID string, m *MachineOptions, server string) error {
	c := krun.TEEConfig{
		WorkloadID: workloadID, CPUs: m.CPUs, MemoryMiB: m.MemoryMiB, TEE: m.TEE,
		TEEData: "{}", AttestationURL: server,
	}
	if m.TEE == kbs.SNP {
		c.TEEData = `{"gen":"milan"}` // libkrun's old init insists on a generation; no one else reads it
	}
	var err error
	if s.teeConfig, err = c.Encode(); err != nil {
		return fmt.Errorf("making %s: %w", krun.TEEConfigFile, err)
	}
	s.footer = krun.AppendFooter(s.geometry.TotalBytes(), s.teeConfig)
	return nil
}

// diskBytes is the length of the finished disk.img.
func (s *sealed) diskBytes() int64 { return s.geometry.TotalBytes() + int64(len(s.footer)) }

// describe makes the registration: rules, and what all that is measured must be.
func (s *sealed) describe(workloadID string, tee kbs.TEE, launch []kbs.Measurement, p *PublishOptions, at time.Time) {
	created := at.UTC().Truncate(time.Second)
	s.reg = kbs.Registration{
		Version:         1,
		WorkloadID:      workloadID,
		IdentityDigest:  kbs.Sum384(s.identity),
		FooterDigest:    kbs.Sum384(s.teeConfig),
		ReferenceValues: kbs.ReferenceValues{TEE: tee, Measurements: launch, SNP: p.Rules.SNP, TDX: p.Rules.TDX, VTPM: p.Rules.VTPM, CEL: p.Rules.CEL},
		Created:         &created,
		Release:         p.Release,
	}
}

// writeDisk streams disk.img: fs encrypted as it comes, then the footer.
func (s *sealed) writeDisk(ctx context.Context, w io.Writer, fs fileSystem, rand io.Reader) error {
	newWriter := luks.NewWriter
	if s.classic {
		newWriter = luks.NewV1Writer
	}
	lw, err := newWriter(w, s.geometry, s.volumeKey, s.diskKey, luks.WriterOptions{KDF: s.kdf, Rand: rand})
	if err != nil {
		return fmt.Errorf("encrypting disk: %w", err)
	}
	if err := fs.WriteTo(ctx, lw); err != nil {
		_ = lw.Close() // stops its workers; err is the cause
		return err
	}
	if err := lw.Close(); err != nil {
		return fmt.Errorf("encrypting disk: %w", err)
	}
	if _, err := w.Write(s.footer); err != nil {
		return fmt.Errorf("writing disk footer: %w", err)
	}
	return nil
}
