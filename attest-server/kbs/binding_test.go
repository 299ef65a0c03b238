package kbs

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func exampleRuntimeData() RuntimeData {
	nonce := make([]byte, NonceSize)
	for i := range nonce {
		nonce[i] = byte(i)
	}
	return RuntimeData{
		Nonce:          nonce,
		TEEKey:         TEEKey{KEM: 0x647a, Public: bytes.Repeat([]byte{0xaa}, 1216)},
		IdentityDigest: Sum384([]byte("identity")), FooterDigest: Sum384([]byte("footer")),
	}
}

// The answers were computed by a second implementation (Python's hashlib)
// from the documentation in docs/protocol.md.
func TestBindingKnownAnswer(t *testing.T) {
	rd, err := Binding("shop", exampleRuntimeData())
	if err != nil {
		t.Fatal(err)
	}
	const want = "bdd51cddf191a8a7353e0829906db91bfdfadf59817f4deec4b94f67ee7a3a71578eede606b2840f9382e0432f6ff1e656b9316e3369e421cc5f32e46a3cac24"
	if got := hex.EncodeToString(rd[:]); got != want {
		t.Errorf("Binding = %s", got)
	}
	const wantInfo = "fe4c57b55695d14180fa532166a71e1ec56a4cc532cf25800b834af838b2b9975e2a95494b474c3c7fef4f890bbc251e57ab8ca03ce5dbffbbd5a808ff121037"
	if got := hex.EncodeToString(ReleaseInfo(rd, ReleaseName("shop"))); got != wantInfo {
		t.Errorf("ReleaseInfo = %s", got)
	}
}

// TestBindingCoversEverything changes each input by one bit or moves a byte
// across a boundary: no two may give the same report data.
func TestBindingCoversEverything(t *testing.T) {
	seen := map[ReportData]string{}
	for name, change := range map[string]func(id *string, rd *RuntimeData){
		"nothing":            func(*string, *RuntimeData) {},
		"workload":           func(id *string, _ *RuntimeData) { *id = "shoq" },
		"nonce":              func(_ *string, r *RuntimeData) { r.Nonce[31] ^= 1 },
		"KEM":                func(_ *string, r *RuntimeData) { r.TEEKey.KEM ^= 1 },
		"TEE key":            func(_ *string, r *RuntimeData) { r.TEEKey.Public[0] ^= 1 },
		"TEE key longer":     func(_ *string, r *RuntimeData) { r.TEEKey.Public = append(r.TEEKey.Public, 0) },
		"identity":           func(_ *string, r *RuntimeData) { r.IdentityDigest[0] ^= 1 },
		"footer":             func(_ *string, r *RuntimeData) { r.FooterDigest[47] ^= 1 },
		"renewal key":        func(_ *string, r *RuntimeData) { r.RenewalKey = &TEEKey{KEM: 0x647a, Public: []byte{1, 2}} },
		"another one":        func(_ *string, r *RuntimeData) { r.RenewalKey = &TEEKey{KEM: 0x647a, Public: []byte{1, 3}} },
		"its KEM":            func(_ *string, r *RuntimeData) { r.RenewalKey = &TEEKey{KEM: 0x647b, Public: []byte{1, 2}} },
		"digests exchanged":  func(_ *string, r *RuntimeData) { r.IdentityDigest, r.FooterDigest = r.FooterDigest, r.IdentityDigest },
		"key byte moved out": func(_ *string, r *RuntimeData) { r.TEEKey.Public = r.TEEKey.Public[:1215]; r.IdentityDigest[0] = 0xaa },
	} {
		id, r := "shop", exampleRuntimeData()
		change(&id, &r)
		got, err := Binding(id, r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q collide", name, other)
		}
		seen[got] = name
	}
}

func TestBindingRefusesGaps(t *testing.T) {
	for name, change := range map[string]func(id *string, rd *RuntimeData){
		"zero":           func(id *string, r *RuntimeData) { *id, *r = "", RuntimeData{} },
		"workload":       func(id *string, _ *RuntimeData) { *id = "" },
		"no nonce":       func(_ *string, r *RuntimeData) { r.Nonce = nil },
		"short nonce":    func(_ *string, r *RuntimeData) { r.Nonce = r.Nonce[:31] },
		"long nonce":     func(_ *string, r *RuntimeData) { r.Nonce = append(r.Nonce, 0) },
		"KEM":            func(_ *string, r *RuntimeData) { r.TEEKey.KEM = 0 },
		"public key":     func(_ *string, r *RuntimeData) { r.TEEKey.Public = nil },
		"renewal KEM":    func(_ *string, r *RuntimeData) { r.RenewalKey = &TEEKey{Public: []byte{1}} },
		"renewal key":    func(_ *string, r *RuntimeData) { r.RenewalKey = &TEEKey{KEM: 1} },
		"zero identity":  func(_ *string, r *RuntimeData) { r.IdentityDigest = Digest{} },
		"zero footer":    func(_ *string, r *RuntimeData) { r.FooterDigest = Digest{} },
		"everything nil": func(_ *string, r *RuntimeData) { *r = RuntimeData{} },
	} {
		id, r := "shop", exampleRuntimeData()
		change(&id, &r)
		if rd, err := Binding(id, r); err == nil || rd != (ReportData{}) {
			t.Errorf("%s: %x, %v", name, rd, err)
		}
	}
}

// TestGuestBinding: a known answer, and no two workloads or data the same.
func TestGuestBinding(t *testing.T) {
	rd, err := GuestBinding("shop", []byte("challenge"))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(rd[:]); got != guestBindingExample {
		t.Errorf("GuestBinding = %s", got)
	}
	for _, other := range [][2]string{{"shop", "challengf"}, {"sho", "pchallenge"}, {"shopc", "hallenge"}, {"shop", ""}} {
		if got, err := GuestBinding(other[0], []byte(other[1])); err != nil || got == rd {
			t.Errorf("%q: %x, %v", other, got, err)
		}
	}
	if got, err := GuestBinding("", []byte("challenge")); err == nil || got != (ReportData{}) {
		t.Errorf("of no workload: %x, %v", got, err)
	}
}

const guestBindingExample = "4006df350ed43f3890d0b3f62eae2c89b883f6d7d9f563db57b3a61a2a6a4aa253aa1aa975df9d699a9327b5cbed0bc68f488a512c1db515fc0ad24d19381fcf"

func TestReleaseInfoSeparates(t *testing.T) {
	a, b := ReportData{1}, ReportData{2}
	if bytes.Equal(ReleaseInfo(a, "x"), ReleaseInfo(b, "x")) || bytes.Equal(ReleaseInfo(a, "x"), ReleaseInfo(a, "y")) {
		t.Error("ReleaseInfo collides")
	}
}
