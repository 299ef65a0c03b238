package attestserver

import (
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
)

func TestBearerRoundTrip(t *testing.T) {
	table, err := newSessions(Config{Clock: time.Now, Rand: rand.Reader, SessionLife: time.Minute, MaxSessions: 10}, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	s, bearer, err := table.open(Native, kbs.SNP, "shop")
	if err != nil {
		t.Fatal(err)
	}
	got, err := table.parse(Native, []byte(bearer))
	if err != nil || *got != *s {
		t.Errorf("parse = %+v, %v, expected %+v", got, err, s)
	}
	_, other, err := table.open(Native, kbs.SNP, "shop")
	if err != nil || other == bearer {
		t.Errorf("two sessions have one bearer, %v", err)
	}
}

// FuzzBearer: nothing but a bearer this process made is a session.
func FuzzBearer(f *testing.F) {
	table, err := newSessions(Config{Clock: time.Now, Rand: rand.Reader, SessionLife: time.Minute, MaxSessions: 10}, []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	_, bearer, err := table.open(Native, kbs.SNP, "shop")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(bearer))
	f.Add([]byte(bearer + "="))
	f.Add([]byte(bearer[:20]))
	f.Add([]byte(base64.RawURLEncoding.EncodeToString(make([]byte, 100))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := table.parse(Native, b); (err == nil) != (string(b) == bearer) || (err != nil && !errors.Is(err, errExpired)) {
			t.Fatalf("parse(%q) = %v", b, err)
		}
	})
}

// nativeRecipient is a guest's key.
func nativeRecipient(t testing.TB) recipient.Recipient {
	t.Helper()
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return recipient.ParseTEEKey(kbs.TEEKey{KEM: k.KEM().ID(), Public: k.PublicKey().Bytes()})
}
