package tests

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/tests/diskcase"
	"github.com/ccrun/ccrun/workload/erofs"
	"github.com/ccrun/ccrun/workload/ext4"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// fileSystems are 8 MiB of files of 4 KiB to 1 MiB, as both kinds.
func fileSystems(t *testing.T) map[string][]byte {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	content := diskcase.Content(1 << 20)
	for i, n := 0, 0; n < 8<<20; i++ {
		size := 4096 << (i % 9)
		n += size
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", i%8, i), Size: int64(size), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content[:size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tree := rootfstest.Tree(t, rootfstest.Layer(layer.Bytes()))
	uuid := [16]byte{1}
	e4, err := ext4.Plan(tree, ext4.Options{UUID: uuid, FreeBytes: 4096, Journal: true, Time: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	ero, err := erofs.Plan(tree, erofs.Options{UUID: uuid})
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	if err := errors.Join(e4.WriteTo(t.Context(), &a), ero.WriteTo(t.Context(), &b)); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"ext4": a.Bytes(), "erofs": b.Bytes(), "": a.Bytes()}
}

// TestReadThroughput measures what the format costs a guest: the same content
// read through plain dm-crypt and through ours, by the same kernel in one
// boot; and what a scratch area costs it, written in one go. It fails only if
// something cannot be read or written: speeds under emulation are for comparing
// with each other.
func TestReadThroughput(t *testing.T) {
	if os.Getenv("CCRUN_BENCH") == "" {
		t.Skip("CCRUN_BENCH=1 measures")
	}
	m := newInteropMachine(t)
	systems, dir := fileSystems(t), t.TempDir()
	var disks []*interopDisk
	for _, fs := range []string{"", "ext4", "erofs"} {
		for _, how := range []string{"dm-crypt alone", luks.AESXTS, luks.AEGIS128} {
			disks = append(disks, benchDisk(t, filepath.Join(dir, fmt.Sprint(len(disks))), fs, how, systems[fs]))
		}
	}
	for _, how := range []string{"dm-crypt alone", luks.AESXTS, luks.AEGIS128} {
		d := benchDisk(t, filepath.Join(dir, fmt.Sprint(len(disks))), "", how, systems[""])
		d.Name, d.Written, d.ReadOnly = "written, "+how, true, false
		truncate(t, d.path, d.Geometry.PlainBytes+16<<20) // a scratch area has larger tags
		disks = append(disks, d)
	}
	report := m.boot(t, simProcessor, disks)
	var base float64
	for _, d := range disks {
		if d.Written && d.Name == "written, dm-crypt alone" {
			base = 0 // of its own kind
		}
		r := report.results[d.Name]
		if r.ReadMicros == 0 || r.ReadBytes < 8<<20 {
			t.Fatalf("%s: %+v%s", d.Name, r, report.takeConsole())
		}
		speed := float64(r.ReadBytes) / float64(r.ReadMicros)
		if base == 0 {
			base = speed
		}
		t.Logf("%-32s %6.1f MB/s, %.2f of plain dm-crypt", d.Name, speed, speed/base)
	}
}

// TestVolumeThroughput measures a volume against what cryptsetup makes with the same
// cipher and integrity, by the same kernel in one boot: written and read in one go,
// and by sectors anywhere.
func TestVolumeThroughput(t *testing.T) {
	if os.Getenv("CCRUN_BENCH") == "" {
		t.Skip("CCRUN_BENCH=1 measures")
	}
	const size = 24 << 20
	m, dir := newInteropMachine(t), t.TempDir()
	var disks []*interopDisk
	for _, pattern := range diskcase.Patterns() {
		for _, theirs := range []bool{true, false} {
			n := fmt.Sprint("volume", len(disks))
			d := cutDisk(t, filepath.Join(dir, n), n, "")
			d.Name, d.bench, d.Pattern, d.Cryptsetup, d.Passphrase = fmt.Sprintf("%s, ours", pattern), true, pattern, theirs, "passphrase"
			if theirs {
				d.Name = fmt.Sprintf("%s, cryptsetup's", pattern)
			}
			d.Geometry.PlainBytes = size
			disks = append(disks, d)
		}
	}
	report := m.boot(t, simProcessor, disks)
	for i := 0; i < len(disks); i += 2 {
		theirs, ours := report.results[disks[i].Name], report.results[disks[i+1].Name]
		if theirs.ReadMicros == 0 || ours.ReadMicros == 0 {
			t.Fatalf("%+v, %+v%s", theirs, ours, report.takeConsole())
		}
		t.Logf("%-16s %.2f of cryptsetup's", disks[i].Pattern, float64(theirs.ReadMicros)/float64(ours.ReadMicros))
	}
}

// benchDisk is encrypted as how says: one of luks.Ciphers, with integrity, or AES-XTS
// without.
func benchDisk(t *testing.T, path, fs, how string, plain []byte) *interopDisk {
	t.Helper()
	d := &interopDisk{path: path, bench: true, Case: diskcase.Case{Serial: "bench" + filepath.Base(path), Filesystem: fs, ReadOnly: true}}
	d.Name = map[string]string{"": "device"}[fs] + fs + ", " + how
	integrity := slices.Contains(luks.Ciphers(), how)
	cipher := luks.AESXTS
	if integrity {
		cipher = how
	}
	var key [32]byte
	_, _ = rand.Read(key[:])
	d.Passphrase = hex.EncodeToString(key[:])
	var err error
	if d.Geometry, err = luks.NewGeometry(interopUUID, int64(len(plain)), cipher, integrity); err != nil {
		t.Fatal(err)
	}
	d.content = plain
	write(t, d.path, d.encrypt(t))
	return d
}
