package session

import (
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/servertest"
	"github.com/ccrun/ccrun/secret"
)

func options(clock func() time.Time) Options {
	return Options{Clock: clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Life: time.Minute, Max: 1000}
}

// newTest is the sessions of a server that is alone.
func newTest(t testing.TB, clock func() time.Time) *Sessions {
	t.Helper()
	s, err := New(options(clock))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// guest is a guest's key.
func guest(t testing.TB) recipient.Recipient {
	t.Helper()
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return recipient.ParseTEEKey(kbs.TEEKey{KEM: k.KEM().ID(), Public: k.PublicKey().Bytes()})
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"zero":         func(o *Options) { *o = Options{} },
		"clock":        func(o *Options) { o.Clock = nil },
		"randomness":   func(o *Options) { o.Rand = nil },
		"log":          func(o *Options) { o.Log = nil },
		"life":         func(o *Options) { o.Life = 0 },
		"bound":        func(o *Options) { o.Max = 0 },
		"shared":       func(o *Options) { o.Shared = &Shared{} },
		"shared store": func(o *Options) { o.Shared = &Shared{Secret: secret.New(make([]byte, SecretSize))} },
	} {
		o := options(time.Now)
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("New without %s", name)
		}
	}
}

func TestBearerRoundTrip(t *testing.T) {
	table := newTest(t, time.Now)
	s, bearer, err := table.Open(Native, kbs.SNP, "shop")
	if err != nil {
		t.Fatal(err)
	}
	got, err := table.Parse(Native, []byte(bearer))
	if err != nil || *got != *s {
		t.Errorf("Parse = %+v, %v, expected %+v", got, err, s)
	}
	_, other, err := table.Open(Native, kbs.SNP, "shop")
	if err != nil || other == bearer {
		t.Errorf("two sessions have one bearer, %v", err)
	}
}

// TestMarksOutliveNonces uses sessions at every phase of the table's turning:
// never within its life can one be used again.
func TestMarksOutliveNonces(t *testing.T) {
	key := guest(t)
	for phase := range 60 {
		clock := servertest.NewClock(time.Unix(1e9, 0))
		table := newTest(t, clock.Now)
		use := func() *Session {
			s, _, err := table.Open(Native, kbs.SNP, "w")
			if err == nil {
				err = table.Use(t.Context(), s)
			}
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		for range phase {
			clock.Advance(time.Second)
			use()
		}
		s := use()
		if err := table.Grant(t.Context(), s, Grant{WorkloadID: "w", Recipient: key, Left: 1000}); err != nil {
			t.Fatal(err)
		}
		for second := range 59 {
			clock.Advance(time.Second)
			use()
			if err := table.Use(t.Context(), s); err == nil {
				t.Fatalf("phase %d: used twice, %d s apart", phase, second+1)
			}
			if _, err := table.Take(t.Context(), s, Claim{WorkloadID: "w"}); err != nil {
				t.Fatalf("phase %d: release after %d s: %v", phase, second+1, err)
			}
		}
	}
}

// TestTakeRefuses: a grant is for its own workload, in its own dialect, and
// what was refused is not spent.
func TestTakeRefuses(t *testing.T) {
	for name, x := range map[string]struct {
		opened Dialect
		grant  Grant
		claim  Claim
	}{
		"another workload's key":         {Native, Grant{WorkloadID: "w", Recipient: guest(t)}, Claim{WorkloadID: "x"}},
		"another workload's resource":    {Native, Grant{WorkloadID: "x", Recipient: guest(t)}, Claim{Resource: true}},
		"native grant, foreign session":  {Trustee, Grant{WorkloadID: "w", Recipient: guest(t)}, Claim{WorkloadID: "w"}},
		"foreign grant, native session":  {Native, Grant{WorkloadID: "w", Recipient: recipient.RSA{}}, Claim{WorkloadID: "w"}},
		"foreign grant, native resource": {Native, Grant{WorkloadID: "w", Recipient: recipient.RSA{}}, Claim{Resource: true}},
		"a grant to nobody":              {Trustee, Grant{WorkloadID: "w"}, Claim{WorkloadID: "w"}},
	} {
		table := newTest(t, time.Now)
		s, _, err := table.Open(x.opened, kbs.SNP, "w")
		if err == nil {
			err = table.Use(t.Context(), s)
		}
		if err != nil {
			t.Fatal(err)
		}
		x.grant.Left = 1
		if err := table.Grant(t.Context(), s, x.grant); err != nil {
			t.Fatal(err)
		}
		for range 2 { // had the first been counted, the second would be ErrExpired
			if _, err := table.Take(t.Context(), s, x.claim); !errors.Is(err, ErrOther) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// FuzzBearer: nothing but a bearer this process made is a session.
func FuzzBearer(f *testing.F) {
	table := newTest(f, time.Now)
	_, bearer, err := table.Open(Native, kbs.SNP, "shop")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(bearer))
	f.Add([]byte(bearer + "="))
	f.Add([]byte(bearer[:20]))
	f.Add([]byte(base64.RawURLEncoding.EncodeToString(make([]byte, 100))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := table.Parse(Native, b); (err == nil) != (string(b) == bearer) || (err != nil && !errors.Is(err, ErrExpired)) {
			t.Fatalf("Parse(%q) = %v", b, err)
		}
	})
}

// FuzzLegacyBearer: nothing but a bearer this process made is a session, and
// its nonce is its own.
func FuzzLegacyBearer(f *testing.F) {
	table := newTest(f, time.Now)
	want, good, err := table.OpenShort("w1")
	if err != nil {
		f.Fatal(err)
	}
	other, _, err := table.OpenShort("w1")
	if err != nil || other.Nonce == want.Nonce {
		f.Fatal("two sessions share a nonce", err)
	}
	_, native, err := table.Open(Native, kbs.SNP, "w1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	f.Add([]byte(native))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := table.ParseShort(b)
		if (err == nil) != (string(b) == good) || err == nil && *s != *want {
			t.Errorf("ParseShort(%q) = %+v, %v", b, s, err)
		}
		if _, err := table.Parse(Trustee, b); err == nil {
			t.Errorf("%q is a CoCo session", b)
		}
	})
}

// FuzzToken: nothing but a token this process made names a session.
func FuzzToken(f *testing.F) {
	mine := newTest(f, time.Now)
	good, err := mine.IssueToken(ID{1, 2, 3}, time.Unix(1e9, 0), time.Minute)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	f.Add([]byte("a.b.c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := mine.ParseToken(b)
		if (err == nil) != (string(b) == good) || err == nil && s.ID != (ID{1, 2, 3}) {
			t.Errorf("ParseToken(%q) = %v, %v", b, s, err)
		}
	})
}
