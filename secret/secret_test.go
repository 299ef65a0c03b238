package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestBytesNeverPrints(t *testing.T) {
	s := New([]byte("hunter2"))
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})).Info("x", "s", s, "in", struct{ S Bytes }{s})
	out := fmt.Sprintf("%v %s %q %x %#v %+v %d", s, s, s, s, s, struct{ S Bytes }{s}, s) + log.String()
	if strings.Contains(out, "hunter2") || strings.Contains(out, "68756e746572") || strings.Contains(out, "104") {
		t.Fatalf("secret printed: %s", out)
	}
	if b, err := json.Marshal(s); err == nil {
		t.Fatalf("secret encoded: %s", b)
	}
}

func TestEqualRefusesEmpty(t *testing.T) {
	var zero Bytes
	if zero.Equal(zero) || New([]byte{}).Equal(zero) {
		t.Fatal("empty secrets are equal")
	}
	if !New([]byte("a")).Equal(New([]byte("a"))) || New([]byte("a")).Equal(New([]byte("b"))) {
		t.Fatal("Equal is wrong")
	}
}

func TestWipe(t *testing.T) {
	b := []byte("abc")
	s := New(b)
	s.Wipe()
	if b[0] != 0 || s.Len() != 0 {
		t.Fatal("not wiped")
	}
}
