package krun

import (
	"bytes"
	"errors"
	"testing"
)

func TestFooterRoundTrip(t *testing.T) {
	for _, end := range []int64{0, 1, 4095, 4096, 1 << 20} {
		js := []byte(`{"a":1}`)
		disk := append(make([]byte, end), AppendFooter(end, js)...)
		if len(disk)%FooterAlign != 0 {
			t.Fatalf("end %d: size %d not aligned", end, len(disk))
		}
		f, err := ReadFooter(bytes.NewReader(disk), int64(len(disk)))
		if err != nil || !bytes.Equal(f.JSON, js) {
			t.Fatalf("end %d: %v %s", end, err, f.JSON)
		}
	}
}

func TestFooterRefusesHostileLength(t *testing.T) {
	disk := AppendFooter(0, []byte(`{}`))
	for _, n := range []byte{0, 0xff} {
		b := bytes.Clone(disk)
		for i := len(b) - 8; i < len(b); i++ {
			b[i] = n
		}
		if _, err := ReadFooter(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Fatalf("length bytes %#x accepted", n)
		}
	}
	if _, err := ReadFooter(bytes.NewReader(make([]byte, 4096)), 4096); !errors.Is(err, ErrNoFooter) {
		t.Fatalf("zero disk: %v", err)
	}
	if _, err := ReadFooter(bytes.NewReader(nil), 0); !errors.Is(err, ErrNoFooter) {
		t.Fatalf("empty disk: %v", err)
	}
}
