// Package lukstest makes small encrypted disks for tests.
package lukstest

import (
	"bytes"
	"crypto/rand"
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
	g, err := luks.DefaultGeometry("11111111-2222-4333-8444-555555555555", 64<<10, integrity)
	if err != nil {
		t.Fatal(err)
	}
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
