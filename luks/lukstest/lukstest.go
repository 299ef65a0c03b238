// Package lukstest makes small encrypted disks for tests.
package lukstest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// Disk is an encrypted disk.
type Disk struct {
	Geometry  luks.Geometry
	VolumeKey *luks.VolumeKey
	Header    *luks.Header
	Bytes     []byte
}

// New makes a disk of 64 KiB of zeros that opens with diskKey.
func New(t testing.TB, diskKey string, kdf luks.KDF, integrity bool) Disk {
	t.Helper()
	g, err := luks.NewGeometry("11111111-2222-4333-8444-555555555555", 64<<10, luks.AESXTS, integrity)
	if err != nil {
		t.Fatal(err)
	}
	return Of(t, diskKey, kdf, g)
}

// Of makes a disk of zeros, laid out as g says, that opens with diskKey.
func Of(t testing.TB, diskKey string, kdf luks.KDF, g luks.Geometry) Disk {
	t.Helper()
	vk, err := luks.NewVolumeKey(rand.Reader, g)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := luks.NewWriter(&b, g, vk, secret.New([]byte(diskKey)), luks.WriterOptions{KDF: kdf, Rand: rand.Reader})
	if err == nil {
		_, err = w.Write(make([]byte, g.PlainBytes))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return Disk{g, vk, Header(t, b.Bytes()), b.Bytes()}
}

// Header is the header of a disk.
func Header(t testing.TB, disk []byte) *luks.Header {
	t.Helper()
	h, err := luks.ReadHeader(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Edit replaces text in both copies of disk's metadata.
func Edit(t testing.TB, disk []byte, old, text string) []byte {
	t.Helper()
	return Rewrite(t, disk, func(metadata []byte) []byte {
		if !bytes.Contains(metadata, []byte(old)) {
			t.Fatalf("no %s in %s", old, metadata)
		}
		return bytes.ReplaceAll(metadata, []byte(old), []byte(text))
	})
}

// Rewrite returns disk, or its first 32 KiB, with both copies of its JSON
// metadata changed and their checksums right again, as whoever holds the disk
// can do.
func Rewrite(t testing.TB, disk []byte, change func(metadata []byte) []byte) []byte {
	t.Helper()
	out := bytes.Clone(disk)
	for _, at := range []int{0, copyBytes} {
		c := out[at : at+copyBytes]
		metadata, _, _ := bytes.Cut(c[metadataAt:], []byte{0})
		metadata = change(bytes.Clone(metadata))
		if len(metadata) >= copyBytes-metadataAt {
			t.Fatalf("metadata of %d bytes", len(metadata))
		}
		clear(c[metadataAt:])
		copy(c[metadataAt:], metadata)
		clear(c[checksumAt : checksumAt+64])
		sum := sha256.Sum256(c)
		copy(c[checksumAt:], sum[:])
	}
	return out
}

// Where a copy of the header has what (LUKS2 specification, section 2.1), in
// the size that this project writes.
const (
	copyBytes  = 16 << 10
	metadataAt = 4096
	checksumAt = 448
)
