package attestserver

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// cocoClient does what guest-components' kbs_protocol does, strictly, with
// code of its own: it shares nothing with the server but the standard library.
type cocoClient struct {
	t        testing.TB
	url      string
	http     *http.Client
	tee      string
	version  string
	key      crypto.Signer
	jwk      map[string]string
	evidence func(reportData [64]byte) any
	change   func(step string, body map[string]any) // what a test does to a request
	token    string
	attested int
}

func newCocoClient(t testing.TB, url string, trust *http.Client, kind string) *cocoClient {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &cocoClient{t: t, url: url, tee: "snp", version: "0.4.0"}
	c.http = &http.Client{Transport: trust.Transport, Jar: jar}
	c.key, c.jwk = cocoKey(t, kind)
	return c
}

func cocoKey(t testing.TB, kind string) (crypto.Signer, map[string]string) {
	t.Helper()
	if kind == "RSA" {
		k := verifiertest.RSAKeys()[0]
		return k, map[string]string{"kty": "RSA", "alg": "RSA-OAEP-256", "n": raw64(k.N.Bytes()), "e": "AQAB"}
	}
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-521": elliptic.P521()}[kind]
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	size := (curve.Params().BitSize + 7) / 8
	return k, map[string]string{"kty": "EC", "crv": kind, "alg": "ECDH-ES+A256KW",
		"x": raw64(k.X.FillBytes(make([]byte, size))), "y": raw64(k.Y.FillBytes(make([]byte, size)))}
}

func raw64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (c *cocoClient) unraw64(s string) []byte {
	c.t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		c.t.Fatalf("%q: %v", s, err)
	}
	return b
}

// errorInformation is what the client must be able to read from a 401.
type errorInformation struct {
	status int
	Type   string `json:"type"`
	Detail string `json:"detail"`
}

func (e *errorInformation) Error() string {
	return fmt.Sprintf("%d %s: %s", e.status, e.Type, e.Detail)
}

func (e *errorInformation) kind() string {
	return strings.TrimPrefix(e.Type, "https://github.com/confidential-containers/kbs/errors/")
}

func (c *cocoClient) post(path string, body any) ([]byte, error) {
	c.t.Helper()
	b, ok := body.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(body); err != nil {
			c.t.Fatal(err)
		}
	}
	resp, err := c.http.Post(c.url+path, "application/json", bytes.NewReader(b))
	if err != nil {
		c.t.Fatal(err)
	}
	return c.answer(resp)
}

func (c *cocoClient) answer(resp *http.Response) ([]byte, error) {
	c.t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	e := &errorInformation{status: resp.StatusCode}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(e); err != nil || e.kind() == "" || e.kind() == e.Type || e.Detail == "" {
		c.t.Fatalf("status %d with %q, which the client cannot read: %v", resp.StatusCode, b, err)
	}
	return nil, e
}

// handshake is rcar_client.rs: auth, attest.
func (c *cocoClient) handshake() error {
	c.t.Helper()
	auth := map[string]any{"version": c.version, "tee": c.tee,
		"extra-params": map[string]any{"supported-hash-algorithms": []string{"sha256", "sha384", "sha512", "sm3"}}}
	c.changed("auth", auth)
	b, err := c.post("/kbs/v0/auth", auth)
	if err != nil {
		return err
	}
	var challenge struct {
		Nonce *string          `json:"nonce"`
		Extra *json.RawMessage `json:"extra-params"`
	}
	if err := json.Unmarshal(b, &challenge); err != nil || challenge.Nonce == nil || challenge.Extra == nil {
		c.t.Fatalf("challenge %s: %v", b, err)
	}
	if n, err := base64.StdEncoding.DecodeString(*challenge.Nonce); err != nil || len(n) != 32 || len(*challenge.Nonce) != 44 {
		c.t.Fatalf("nonce %q: %v", *challenge.Nonce, err)
	}
	return c.attest(*challenge.Nonce)
}

func (c *cocoClient) attest(nonce string) error {
	c.t.Helper()
	runtime := map[string]any{"nonce": nonce, "tee-pubkey": c.jwk}
	// Canonical form: the members in order, no HTML escapes needed in these.
	hashed, err := json.Marshal(map[string]any{"additional-evidence": "", "nonce": nonce, "tee-pubkey": c.jwk})
	if err != nil {
		c.t.Fatal(err)
	}
	sum := sha512.Sum384(hashed)
	var rd [64]byte
	copy(rd[:], sum[:])
	body := map[string]any{"init-data": nil, "runtime-data": runtime,
		"tee-evidence": map[string]any{"primary_evidence": c.evidence(rd), "additional_evidence": ""}}
	c.changed("attest", body)
	b, err := c.post("/kbs/v0/attest", body)
	if err != nil {
		return err
	}
	c.attested++
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		c.t.Fatalf("attest: %s: %v", b, err)
	}
	c.token = answer.Token
	c.checkToken()
	return nil
}

func (c *cocoClient) changed(step string, body map[string]any) {
	if c.change != nil {
		c.change(step, body)
	}
}

// checkToken is token_provider/mod.rs.
func (c *cocoClient) checkToken() {
	c.t.Helper()
	parts := strings.Split(c.token, ".")
	if len(parts) < 2 {
		c.t.Fatalf("token %q", c.token)
	}
	var claims struct{ Exp, Nbf, Iat *int64 }
	if err := json.Unmarshal(c.unraw64(parts[1]), &claims); err != nil || claims.Exp == nil || claims.Nbf == nil || claims.Iat == nil || *claims.Exp <= *claims.Nbf {
		c.t.Fatalf("token claims %s: %v", c.unraw64(parts[1]), err)
	}
}

var errNoResource = errors.New("resource not found")

// resource is get_resource: a 401 is worth one handshake, a 404 is final.
func (c *cocoClient) resource(path string) ([]byte, error) {
	c.t.Helper()
	for range 3 {
		resp, err := c.http.Get(c.url + "/kbs/v0/resource/" + path)
		if err != nil {
			c.t.Fatal(err)
		}
		b, err := c.answer(resp)
		var e *errorInformation
		switch {
		case err == nil:
			return c.open(b)
		case !errors.As(err, &e) || e.status != http.StatusUnauthorized && e.status != http.StatusNotFound:
			return nil, err
		case e.status == http.StatusNotFound:
			return nil, errNoResource
		}
		if err := c.handshake(); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("still unauthorized after three handshakes")
}

// open decrypts a JWE the way the client does: it authenticates not the header
// it got but alg, enc and the sorted rest of it.
func (c *cocoClient) open(b []byte) ([]byte, error) {
	var j map[string]string
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("JWE %s: %w", b, err)
	}
	var header map[string]any
	if err := json.Unmarshal(c.unraw64(j["protected"]), &header); err != nil {
		return nil, err
	}
	alg, enc := header["alg"], header["enc"]
	delete(header, "alg")
	delete(header, "enc")
	again := fmt.Sprintf(`{"alg":"%s","enc":"%s"`, alg, enc)
	if len(header) > 0 {
		rest, err := json.Marshal(header) // sorts at every level
		if err != nil {
			return nil, err
		}
		again += "," + string(rest[1:])
	} else {
		again += "}"
	}
	cek, err := c.unwrap(alg, header, c.unraw64(j["encrypted_key"]))
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(cek)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	sealed := append(c.unraw64(j["ciphertext"]), c.unraw64(j["tag"])...)
	return gcm.Open(nil, c.unraw64(j["iv"]), sealed, []byte(raw64([]byte(again))))
}

func (c *cocoClient) unwrap(alg any, header map[string]any, wrapped []byte) ([]byte, error) {
	switch k := c.key.(type) {
	case *rsa.PrivateKey:
		if alg != "RSA-OAEP-256" {
			return nil, fmt.Errorf("alg %v", alg)
		}
		return rsa.DecryptOAEP(sha256.New(), nil, k, wrapped, nil)
	case *ecdsa.PrivateKey:
		epk, ok := header["epk"].(map[string]any)
		if !ok || alg != "ECDH-ES+A256KW" || epk["kty"] != "EC" || epk["crv"] != c.jwk["crv"] {
			return nil, fmt.Errorf("header %v", header)
		}
		x, y := c.unraw64(epk["x"].(string)), c.unraw64(epk["y"].(string))
		size := (k.Params().BitSize + 7) / 8
		if len(x) != size || len(y) != size {
			return nil, fmt.Errorf("coordinates of %d and %d bytes", len(x), len(y))
		}
		//lint:ignore SA1019 an implementation other than the server's
		z, _ := k.ScalarMult(new(big.Int).SetBytes(x), new(big.Int).SetBytes(y), k.D.Bytes())
		kek := sha256.Sum256(slices.Concat([]byte{0, 0, 0, 1}, z.FillBytes(make([]byte, size)),
			[]byte{0, 0, 0, 14}, []byte("ECDH-ES+A256KW"), make([]byte, 8), []byte{0, 0, 1, 0}))
		return unwrapAES(kek[:], wrapped)
	}
	return nil, errors.New("no key")
}

// unwrapAES is RFC 3394, section 2.2.2.
func unwrapAES(kek, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil || len(wrapped) != 40 {
		return nil, fmt.Errorf("wrapped key of %d bytes: %w", len(wrapped), err)
	}
	a := binary.BigEndian.Uint64(wrapped)
	r := slices.Clone(wrapped[8:])
	n := len(r) / 8
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			b := binary.BigEndian.AppendUint64(nil, a^uint64(n*j+i))
			b = append(b, r[8*i-8:8*i]...)
			block.Decrypt(b, b)
			a = binary.BigEndian.Uint64(b)
			copy(r[8*i-8:], b[8:])
		}
	}
	if a != 0xa6a6a6a6a6a6a6a6 {
		return nil, errors.New("key wrap does not verify")
	}
	return r, nil
}

// ints is how the sev crate writes bytes.
func ints(b []byte) []int {
	out := make([]int, len(b))
	for i, x := range b {
		out[i] = int(x)
	}
	return out
}

// cocoSNPEvidence is the snp attester's JSON of a report of Genoa, version 5.
func cocoSNPEvidence(ev kbs.Evidence, certs []map[string]any) any {
	r := ev.Report
	le := binary.LittleEndian
	tcb := func(off int) map[string]any {
		return map[string]any{"fmc": nil, "bootloader": r[off], "tee": r[off+1], "snp": r[off+6], "microcode": r[off+7]}
	}
	version := func(off int) map[string]any {
		return map[string]any{"major": r[off+2], "minor": r[off+1], "build": r[off]}
	}
	var chain any
	if certs != nil {
		chain = certs
	}
	return map[string]any{"cert_chain": chain, "attestation_report": map[string]any{
		"version": le.Uint32(r), "guest_svn": le.Uint32(r[4:]), "policy": le.Uint64(r[8:]),
		"family_id": ints(r[0x10:0x20]), "image_id": ints(r[0x20:0x30]), "vmpl": le.Uint32(r[0x30:]), "sig_algo": le.Uint32(r[0x34:]),
		"current_tcb": tcb(0x38), "plat_info": le.Uint64(r[0x40:]), "key_info": le.Uint32(r[0x48:]),
		"report_data": ints(r[0x50:0x90]), "measurement": ints(r[0x90:0xc0]), "host_data": ints(r[0xc0:0xe0]),
		"id_key_digest": ints(r[0xe0:0x110]), "author_key_digest": ints(r[0x110:0x140]),
		"report_id": ints(r[0x140:0x160]), "report_id_ma": ints(r[0x160:0x180]), "reported_tcb": tcb(0x180),
		"cpuid_fam_id": r[0x188], "cpuid_mod_id": r[0x189], "cpuid_step": r[0x18a], "chip_id": ints(r[0x1a0:0x1e0]),
		"committed_tcb": tcb(0x1e0), "current": version(0x1e8), "committed": version(0x1ec), "launch_tcb": tcb(0x1f0),
		"launch_mit_vector": le.Uint64(r[0x1f8:]), "current_mit_vector": le.Uint64(r[0x200:]),
		"signature": map[string]any{"r": ints(r[0x2a0:0x2e8]), "s": ints(r[0x2e8:0x330])},
	}}
}
