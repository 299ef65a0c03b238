package luks

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

func TestScratchGeometry(t *testing.T) {
	for _, n := range []int64{64 << 20, 8 << 30, 1 << 40} {
		g, err := ScratchGeometry(mustGeometry(t, 1<<20, true), n)
		if err != nil {
			t.Fatal(err)
		}
		if l := g.layout(); l.dataOffset(n) < g.SegmentBytes() || g.SegmentBytes() < n+n/4096*48 {
			t.Errorf("%d bytes are laid out as %+v in %d", n, l, g.SegmentBytes())
		}
		if got := string(cryptTable(&g, "253:1", []byte("K")).params); got != "capi:authenc(hmac(sha256),xts(aes))-random K 0 253:1 0 2 integrity:48:aead sector_size:4096" {
			t.Errorf("table %q", got)
		}
	}
	for _, n := range []int64{0, -4096, 4095, 1 << 62} {
		if g, err := ScratchGeometry(mustGeometry(t, 1<<20, true), n); err == nil {
			t.Errorf("%d bytes accepted: %+v", n, g)
		}
	}
}

// TestStoredIVIsNoImages: nothing decoded can ask for stored IVs, and nothing
// but the kernel encrypts with them.
func TestStoredIVIsNoImages(t *testing.T) {
	g, err := ScratchGeometry(mustGeometry(t, 1<<20, true), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	js, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var decoded Geometry
	if err := json.Unmarshal(js, &decoded); err != nil {
		t.Fatal(err)
	}
	if err := decoded.Validate(); err == nil || !strings.Contains(err.Error(), "tags of 48") {
		t.Errorf("a decoded geometry with stored IVs: %v", err)
	}
	vk, err := NewVolumeKey(rand.Reader, g)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewWriter(new(bytes.Buffer), g, vk, secret.New([]byte("pass")), WriterOptions{KDF: FastKDF(), Rand: rand.Reader}); err == nil {
		t.Error("the writer takes a geometry with stored IVs")
	}
}

func TestWriteEmpty(t *testing.T) {
	g, err := ScratchGeometry(mustGeometry(t, 1<<20, true), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteEmpty(&out, g); err != nil {
		t.Fatal(err)
	}
	if l := g.layout(); int64(out.Len()) != l.initialBytes || out.Len() > 5<<20 {
		t.Errorf("%d bytes, expected superblock and journal alone, %d", out.Len(), l.initialBytes)
	}
	again := Geometry{SectorBytes: g.SectorBytes}
	err = parseSuperblock(out.Bytes(), &again)
	if again.Integrity.Algorithm = g.Integrity.Algorithm; err != nil || *again.Integrity != *g.Integrity || again.PlainBytes != g.PlainBytes {
		t.Errorf("superblock says %+v, %v", again, err)
	}
	if plain := mustGeometry(t, 1<<20, false); WriteEmpty(&out, plain) == nil || WriteEmpty(&out, Geometry{}) == nil {
		t.Error("an empty disk without tags")
	}
}

func TestWrap(t *testing.T) {
	g, err := ScratchGeometry(mustGeometry(t, 1<<20, true), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	draw := func() *VolumeKey {
		vk, err := NewVolumeKey(rand.Reader, g)
		if err != nil {
			t.Fatal(err)
		}
		return vk
	}
	outer, inner := draw(), draw()
	w, err := outer.Wrap(rand.Reader, []byte("context"), inner)
	if err != nil || len(w) != WrappedBytes(g) || bytes.Contains(w, inner.b[:16]) {
		t.Fatalf("wrapped: %x, %v", w, err)
	}
	if got, err := outer.Unwrap([]byte("context"), w, g); err != nil || !bytes.Equal(got.b, inner.b) {
		t.Fatalf("unwrapped: %v", err)
	}
	again, err := outer.Wrap(rand.Reader, []byte("context"), inner)
	if err != nil || bytes.Equal(again[wrapSaltBytes:], w[wrapSaltBytes:]) {
		t.Errorf("the same key wrapped twice gives the same bytes: %v", err)
	}
	for name, try := range map[string]func() (*VolumeKey, error){
		"other key":     func() (*VolumeKey, error) { return draw().Unwrap([]byte("context"), w, g) },
		"other context": func() (*VolumeKey, error) { return outer.Unwrap([]byte("contexu"), w, g) },
		"no context":    func() (*VolumeKey, error) { return outer.Unwrap(nil, w, g) },
		"cut":           func() (*VolumeKey, error) { return outer.Unwrap([]byte("context"), w[:len(w)-1], g) },
		"grown":         func() (*VolumeKey, error) { return outer.Unwrap([]byte("context"), append(bytes.Clone(w), 0), g) },
		"empty":         func() (*VolumeKey, error) { return outer.Unwrap([]byte("context"), nil, g) },
		"zeros":         func() (*VolumeKey, error) { return outer.Unwrap([]byte("context"), make([]byte, len(w)), g) },
	} {
		if _, err := try(); !errors.Is(err, ErrWrapped) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range w {
		flipped := bytes.Clone(w)
		flipped[i] ^= 1
		if _, err := outer.Unwrap([]byte("context"), flipped, g); !errors.Is(err, ErrWrapped) {
			t.Fatalf("bit flipped in byte %d: %v", i, err)
		}
	}
	if _, err := (&VolumeKey{}).Wrap(rand.Reader, nil, inner); err == nil {
		t.Error("wrapped under no key")
	}
	if _, err := outer.Wrap(rand.Reader, nil, &VolumeKey{}); err == nil {
		t.Error("wrapped no key")
	}
	if _, err := outer.Wrap(strings.NewReader("short"), nil, inner); err == nil {
		t.Error("wrapped without a salt")
	}
}
