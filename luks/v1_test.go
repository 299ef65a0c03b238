package luks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

const v1TestUUID = "0f0a0b0c-1111-4222-8333-444455556666"

func v1Disk(t testing.TB, n int) (Geometry, *VolumeKey, []byte) {
	t.Helper()
	g, err := V1Geometry(v1TestUUID, int64(n))
	if err != nil {
		t.Fatal(err)
	}
	vk, err := NewVolumeKey(seeded(9), g)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := NewV1Writer(&out, g, vk, testPassphrase(), options(2))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plaintext(int64(n))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return g, vk, out.Bytes()
}

func openV1(t testing.TB, disk []byte, pass secret.Bytes) []byte {
	t.Helper()
	h, err := ReadV1Header(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	vk, err := h.Unlock(pass)
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Geometry(int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(bytes.NewReader(disk), g, vk)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(r, 0, g.PlainBytes))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestV1RoundTrip(t *testing.T) {
	_, _, disk := v1Disk(t, 3<<20)
	if !bytes.Equal(openV1(t, disk, testPassphrase()), plaintext(3<<20)) {
		t.Fatal("other content")
	}
	h, err := ReadV1Header(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"", "wrong"} {
		if _, err := h.Unlock(secret.New([]byte(p))); !errors.Is(err, ErrWrongPassphrase) {
			t.Errorf("passphrase %q: %v", p, err)
		}
	}
	// A footer's beginning is not content.
	if g, err := h.Geometry(int64(len(disk)) - 100); err != nil || g.PlainBytes != 3<<20-4096 {
		t.Errorf("geometry %+v, %v", g, err)
	}
	if _, err := h.Geometry(int64(len(disk)) + 1); err == nil {
		t.Error("content beyond the disk")
	}
}

func TestCryptsetupOpensOurV1(t *testing.T) {
	_, vk, b := v1Disk(t, 1<<20)
	disk, pass := writeTemp(t, "disk", b), writeTemp(t, "pass", testPassphrase().Reveal())
	cryptsetup(t, "open", "--test-passphrase", "--type", "luks1", "--key-file", pass, disk)
	dump := cryptsetup(t, "luksDump", disk)
	for _, want := range []string{v1TestUUID, "xts-plain64", "Version:       \t1", "MK bits:       \t512", "Payload offset:\t4040"} {
		if !strings.Contains(dump, want) {
			t.Errorf("luksDump lacks %q:\n%s", want, dump)
		}
	}
	out := disk + ".vk"
	cryptsetup(t, "luksDump", "--dump-master-key", "--master-key-file", out, "--key-file", pass, disk)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, vk.b) {
		t.Fatalf("cryptsetup finds another volume key (%d bytes, %v)", len(got), err)
	}
}

func TestWeOpenCryptsetupsV1(t *testing.T) {
	pass := writeTemp(t, "pass", testPassphrase().Reveal())
	for _, hash := range []string{"sha256", "sha512"} {
		disk := writeTemp(t, "disk-"+hash, make([]byte, 4<<20))
		cryptsetup(t, "luksFormat", "--type", "luks1", "--key-size", "512", "--hash", hash, "--pbkdf-force-iterations", "1000", disk, pass)
		b, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(openV1(t, b, testPassphrase())); n != 2<<20 {
			t.Errorf("%d bytes of content, expected 2 MiB", n)
		}
	}
}

// TestV1Mutations alters each field to something that must be refused.
func TestV1Mutations(t *testing.T) {
	_, _, good := v1Disk(t, 64<<10)
	put32 := func(off int, v uint32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[off:], v) }
	}
	text := func(off int, s string) func([]byte) {
		return func(b []byte) { copy(b[off:], s+"\x00\x00\x00\x00\x00\x00\x00\x00\x00") }
	}
	for name, mutate := range map[string]func([]byte){
		"null cipher":        text(8, "cipher_null"),
		"other mode":         text(40, "ecb"),
		"text after padding": func(b []byte) { b[39] = 'x' },
		"other hash":         text(72, "sha1"),
		"payload zero":       put32(104, 0),
		"payload unaligned":  put32(104, 4041),
		"payload beyond":     put32(104, 1<<31),
		"short key":          put32(108, 16),
		"huge key":           put32(108, 1<<31),
		"digest iterations":  put32(164, 1<<31),
		"no iterations":      put32(164, 0),
		"UUID":               text(168, "nonsense"),
		"slot state":         put32(208, 1),
		"all slots off":      put32(208, v1SlotDisabled),
		"slot iterations":    put32(212, 1<<31),
		"slot in header":     put32(248, 0),
		"slot beyond":        put32(248, 1<<30),
		"stripes":            put32(252, 1),
		"overlap":            func(b []byte) { copy(b[256:304], b[208:256]) },
	} {
		b := bytes.Clone(good)
		mutate(b)
		if _, err := ReadV1Header(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, off := range map[string]int{"digest": 112, "digest salt": 132, "slot salt": 216, "key material": 4096} {
		b := bytes.Clone(good)
		b[off] ^= 1
		h, err := ReadV1Header(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Unlock(testPassphrase()); !errors.Is(err, ErrWrongPassphrase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadV1Header(bytes.NewReader(good[:100]), 100); !errors.Is(err, ErrNotLUKS1) {
		t.Errorf("short disk: %v", err)
	}
}

func TestV1WriterRefuses(t *testing.T) {
	g, vk, _ := v1Disk(t, 4096)
	bad := g
	bad.SectorBytes = 4096
	if _, err := NewV1Writer(io.Discard, bad, vk, testPassphrase(), options(1)); err == nil {
		t.Error("4096-byte sectors accepted")
	}
	if _, err := NewV1Writer(io.Discard, g, vk, secret.Bytes{}, options(1)); err == nil {
		t.Error("no passphrase accepted")
	}
	o := options(1)
	o.KDF = KDF{Type: "argon2id", Iterations: 4, MemoryKiB: 1024, Threads: 1}
	if _, err := NewV1Writer(io.Discard, g, vk, testPassphrase(), o); err == nil {
		t.Error("argon2 accepted")
	}
}

func FuzzReadV1Header(f *testing.F) {
	_, _, disk := v1Disk(f, 4096)
	f.Add(disk[:v1HeaderBytes])
	f.Fuzz(func(t *testing.T, b []byte) {
		// The header alone, in front of a disk of zeros.
		whole := append(b[:min(len(b), v1HeaderBytes):min(len(b), v1HeaderBytes)], make([]byte, 3<<20)...)
		h, err := ReadV1Header(bytes.NewReader(whole), int64(len(whole)))
		if err != nil {
			return
		}
		if g, err := h.Geometry(int64(len(whole))); err == nil && g.TotalBytes() > int64(len(whole)) {
			t.Fatalf("geometry %+v beyond the disk", g)
		}
	})
}
