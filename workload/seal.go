package workload

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/google/uuid"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// fileSystem is a laid out file system, ready to be streamed: its size, and
// with it everything that is measured, is known before its first byte.
type fileSystem interface {
	SizeBytes() int64
	WriteTo(ctx context.Context, w io.Writer) error // exactly SizeBytes, in order
}

// sealed is a workload's keys and all that is measured of it.
type sealed struct {
	diskKey   secret.Bytes
	kdf       luks.KDF
	volumeKey *luks.VolumeKey
	geometry  luks.Geometry
	classic   bool // LUKS1, and no identity

	identity  []byte // canonical
	initrd    []byte
	teeConfig []byte
	footer    []byte // with its padding, as it follows the LUKS part
	reg       kbs.Registration
}

// wipe overwrites the keys.
func (s *sealed) wipe() {
	s.diskKey.Wipe()
	if s.volumeKey != nil {
		s.volumeKey.Wipe()
	}
}

// seal draws the keys and computes identity, footer and launch digests for a
// disk that holds plainBytes and the process whose JSON has processDigest.
func (o *Options) seal(fw *firmware.Bundle, agent []byte, plainBytes int64, processDigest kbs.Digest) (*sealed, error) {
	s := &sealed{}
	err := s.drawKeys(o, plainBytes)
	if err == nil {
		err = s.identify(o, agent, processDigest)
	}
	if err == nil {
		err = s.configure(o)
	}
	if err == nil {
		err = s.register(o, fw)
	}
	if err != nil {
		s.wipe()
		return nil, err
	}
	return s, nil
}

func (s *sealed) drawKeys(o *Options, plainBytes int64) error {
	random, err := o.random("disk UUID")
	if err != nil {
		return err
	}
	id, err := uuid.NewRandomFromReader(random)
	if err != nil {
		return fmt.Errorf("drawing disk UUID: %w", err)
	}
	if s.geometry, err = luks.DefaultGeometry(id.String(), plainBytes, !o.NoIntegrity); err != nil {
		return fmt.Errorf("laying out disk: %w", err)
	}
	if random, err = o.random("volume key"); err != nil {
		return err
	}
	if s.volumeKey, err = luks.NewVolumeKey(random, s.geometry); err != nil {
		return err
	}
	if o.Passphrase.Len() > 0 {
		s.diskKey = secret.New(append([]byte(nil), o.Passphrase.Reveal()...))
		s.kdf = kdfFor(s.diskKey)
		return nil
	}
	var key [32]byte
	if _, err := io.ReadFull(o.Rand, key[:]); err != nil {
		return fmt.Errorf("drawing disk key: %w", err)
	}
	s.diskKey, s.kdf = secret.New(hex.AppendEncode(nil, key[:])), luks.FastKDF()
	clear(key[:])
	return nil
}

// kdfFor stretches what a person may have made up, and leaves alone what has
// the form of our own random keys.
func kdfFor(passphrase secret.Bytes) luks.KDF {
	if isRandomKey(passphrase.Reveal()) {
		return luks.FastKDF()
	}
	return luks.KDF{Type: "argon2id", Iterations: 4, MemoryKiB: 64 << 10, Threads: 1}
}

func (s *sealed) identify(o *Options, agent []byte, processDigest kbs.Digest) error {
	id := krun.Identity{
		Version:    1,
		WorkloadID: o.WorkloadID,
		TEE:        o.TEE,
		Servers:    o.Servers,
		Disk: krun.DiskIdentity{
			Geometry:        s.geometry,
			VolumeKeyDigest: s.volumeKey.Digest(),
			Filesystem:      o.Filesystem,
		},
		ProcessDigest: processDigest,
		Policy:        o.Policy,
	}
	var err error
	if s.identity, err = id.Encode(); err != nil {
		return fmt.Errorf("making identity: %w", err)
	}
	segment, err := firmware.IdentitySegment(s.identity)
	if err != nil {
		return fmt.Errorf("making identity segment: %w", err)
	}
	if s.initrd, err = firmware.ComposeInitrd(agent, segment); err != nil {
		return fmt.Errorf("composing initrd: %w", err)
	}
	return nil
}

// configure makes what libkrun reads, which is also the disk's footer.
func (s *sealed) configure(o *Options) error {
	c := krun.TEEConfig{
		WorkloadID: o.WorkloadID, CPUs: o.CPUs, MemoryMiB: o.MemoryMiB, TEE: o.TEE,
		TEEData: "{}", AttestationURL: o.Servers.URLs[0],
	}
	if o.TEE == kbs.SNP {
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

func (s *sealed) register(o *Options, fw *firmware.Bundle) error {
	launch, err := measurements(o, fw, s.initrd)
	if err != nil {
		return err
	}
	now := o.Now().UTC().Truncate(1e9)
	s.reg = kbs.Registration{
		Version:         1,
		WorkloadID:      o.WorkloadID,
		IdentityDigest:  kbs.Sum384(s.identity),
		FooterDigest:    kbs.Sum384(s.teeConfig),
		ReferenceValues: kbs.ReferenceValues{TEE: o.TEE, Measurements: launch, SNP: o.Rules.SNP, TDX: o.Rules.TDX, VTPM: o.Rules.VTPM, CEL: o.Rules.CEL},
		Created:         &now,
		Release:         o.Release,
	}
	return nil
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
