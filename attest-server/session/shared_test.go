package session

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/store"
)

// newTestShared is the sessions of a server that shares them, and where.
func newTestShared(t testing.TB) (*Sessions, *store.DB) {
	t.Helper()
	master, err := masterkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{MasterKey: master, Rand: rand.Reader, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	o := options(time.Now)
	o.Shared = &Shared{Store: db}
	if o.Shared.Secret, err = db.SessionSecret(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

// newTestSharedAt is newTestShared with a clock of the caller's.
func newTestSharedAt(t testing.TB, clock func() time.Time) *Sessions {
	t.Helper()
	_, db := newTestShared(t)
	secret, err := db.SessionSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := options(clock)
	o.Shared = &Shared{Store: db, Secret: secret}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestHostileDatabase plays an administrator of the database, who can change
// every row but has no MasterKey: no grant of his making or moving is good.
func TestHostileDatabase(t *testing.T) {
	table, db := newTestShared(t)
	granted := func(id string) *Session {
		s, _, err := table.Open(Native, kbs.Sample, id)
		if err == nil {
			err = table.Use(t.Context(), s)
		}
		if err == nil {
			err = table.Grant(t.Context(), s, Grant{WorkloadID: id, Registration: kbs.Digest{1}, Recipient: guest(t), Left: 3})
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	victim, other := granted("w1"), granted("w2")
	theirs, err := db.SessionGrant(t.Context(), other.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	for name, sealed := range map[string][]byte{
		"another session's": theirs, "empty": {}, "short": theirs[:20], "bit flipped": append([]byte{theirs[0] ^ 1}, theirs[1:]...),
		"in clear": []byte(`{"workload_id":"w1"}`),
	} {
		table.Table.(*shared).store = fixedGrant{Store: db, sealed: sealed}
		if g, err := table.Take(t.Context(), victim, Claim{WorkloadID: "w1"}); !errors.Is(err, store.ErrTampered) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
	table.Table.(*shared).store = db
	if _, err := table.Take(t.Context(), victim, Claim{WorkloadID: "w1"}); err != nil {
		t.Errorf("its own: %v", err)
	}
}

type fixedGrant struct {
	Store
	sealed []byte
}

func (f fixedGrant) SessionGrant(context.Context, string) ([]byte, error) { return f.sealed, nil }

func TestGrantsSurviveTheirForm(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, curve := range map[string]ecdh.Curve{"P-256": ecdh.P256(), "P-521": ecdh.P521()} {
		private, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		same(t, Grant{WorkloadID: "w", Recipient: recipient.EC{Public: private.PublicKey(), Curve: name}, Left: 2, until: time.Hour})
	}
	same(t, Grant{WorkloadID: "w", Recipient: guest(t), Left: 2})
	same(t, Grant{WorkloadID: "w", Recipient: recipient.RSA{Public: &k.PublicKey}, Left: 2})
	same(t, Grant{WorkloadID: "w", Recipient: recipient.Legacy{Public: &k.PublicKey}, ReportData: kbs.ReportData{7}})
	if _, err := encodeGrant(Grant{}); err == nil {
		t.Error("a grant to nobody")
	}
	for _, bad := range []string{`{}`, `{"recipient":"rsa"}`, `{"kem":1,"tee_key":"AA=="}`} {
		if _, err := decodeGrant([]byte(bad)); err == nil {
			t.Errorf("decoded %s", bad)
		}
	}
}

func same(t *testing.T, g Grant) {
	t.Helper()
	g.Registration = kbs.Sum384([]byte("registration"))
	b, err := encodeGrant(g)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeGrant(b)
	if err != nil || reflect.TypeOf(got.Recipient) != reflect.TypeOf(g.Recipient) {
		t.Fatalf("%s: %+v, %v", b, got, err)
	}
	again, err := encodeGrant(got)
	if err != nil || string(again) != string(b) {
		t.Errorf("%s became %s, %v", b, again, err)
	}
}
