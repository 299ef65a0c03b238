package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/tests/diskcase"
)

// randomIOs are made at once, and then flushed.
const randomIOs = 512

// benchPattern makes a volume, or what cryptsetup makes of the same integrity,
// writes all of it, and returns what then uses it as c says.
func benchPattern(c diskcase.Case, device string) (func() (int64, error), error) {
	path, err := patternDevice(&c, device)
	if err != nil {
		return nil, err
	}
	if _, err := writeFile(path, diskcase.Content(1<<20), c.Geometry.PlainBytes); err != nil {
		return nil, err
	}
	switch c.Pattern {
	case diskcase.SequentialWrite:
		return func() (int64, error) { return writeFile(path, diskcase.Content(1<<20), c.Geometry.PlainBytes) }, nil
	case diskcase.SequentialRead:
		return func() (int64, error) { return io.Copy(io.Discard, io.LimitReader(opened(path), c.Geometry.PlainBytes)) }, nil
	case diskcase.RandomWrite, diskcase.RandomRead:
		return func() (int64, error) { return randomly(path, c.Geometry.PlainBytes, c.Pattern == diskcase.RandomWrite) }, nil
	}
	return nil, fmt.Errorf("unknown pattern %q", c.Pattern)
}

// opened is a file whose end closes it.
func opened(path string) io.Reader {
	f, err := os.Open(path)
	if err != nil {
		return errorReader{err}
	}
	return f // the guest ends soon
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func patternDevice(c *diskcase.Case, device string) (string, error) {
	if c.Cryptsetup {
		if err := os.WriteFile(keyFile, []byte(c.Passphrase), 0o600); err != nil {
			return "", err
		}
		if err := cryptsetup("luksFormat", "--type", "luks2", "--cipher", "aes-xts-random", "--key-size", "512", "--integrity", "hmac-sha256",
			"--integrity-no-wipe", "--sector-size", "4096", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile, device); err != nil {
			return "", err
		}
		return (&theirs{device, c.Serial}).open(false)
	}
	v, err := newVolume(c, device)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	err = luks.WriteEmpty(io.NewOffsetWriter(f, v.geometry.DataOffsetBytes), v.geometry)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	return luks.Activate(v.geometry, v.vk, luks.Place{Device: device}, v.name, false)
}

// randomly reads or writes sectors anywhere, past the cache.
func randomly(path string, size int64, writes bool) (n int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := aligned(4096)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(b)
	random := rand.New(rand.NewPCG(1, 2))
	for range randomIOs {
		at := random.Int64N(size/4096) * 4096
		if writes {
			_, err = f.WriteAt(b, at)
		} else {
			_, err = f.ReadAt(b, at)
		}
		if err != nil {
			return n, err
		}
		n += int64(len(b))
	}
	return n, f.Sync()
}
