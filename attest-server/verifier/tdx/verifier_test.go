package tdx

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/pcs"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestTDXEveryByte: whichever byte of a real quote is changed, it is refused.
func TestTDXEveryByte(t *testing.T) {
	quote, c, at := realTD(t)
	v, err := New(Options{Collateral: oneCollateral{&c}})
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]int{}
	ev := func(b []byte) string {
		_, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: b}, at)
		return verifier.RuleOf(err)
	}
	if rule := ev(quote); rule != "" {
		t.Fatalf("unchanged: refused by %s", rule)
	}
	chain := bytes.Index(quote, []byte("-----BEGIN"))
	for i := 0; i < len(quote); i++ {
		if i >= chain && i%16 != 0 { // each costs a chain check
			continue
		}
		m := bytes.Clone(quote)
		m[i] ^= 1 << (i % 8)
		rule := ev(m)
		if rule == "" && i < chain {
			t.Fatalf("byte %#x changed and accepted", i)
		}
		rules[rule]++
	}
	// PEM has bytes without meaning, such as base64 line ends.
	if rules[""] > 8 {
		t.Errorf("%d changes in the PEM chain accepted: %v", rules[""], rules)
	}
	for _, size := range []int{0, 8, 48, 700, 4000} {
		if rule := ev(quote[:size]); rule == "" {
			t.Errorf("%d bytes of a quote accepted", size)
		}
	}
	if rule := ev(append(bytes.Clone(quote), make([]byte, 64<<20)...)); rule != "evidence_format" {
		t.Errorf("64 MiB: refused by %q, expected evidence_format", rule)
	}
}

// TestTDXCollateral: each member of the collateral changed, and the chain's
// parts exchanged.
func TestTDXCollateral(t *testing.T) {
	quote, good, at := realTD(t)
	other, err := ParseCollateral(verifiertest.ReadFile(t, verifiertest.Vectors(t), "evidence", "tdx-v4.collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, rule string
		edit       func(c *Collateral)
		at         time.Time
	}{
		{"unchanged", "", func(*Collateral) {}, at},
		{"another platform's", "collateral", func(c *Collateral) { *c = *other }, at},
		{"TCB info changed", "collateral", func(c *Collateral) { c.TCBInfo = strings.Replace(c.TCBInfo, "OutOfDate", "UpToDate ", 1) }, at},
		{"TCB info of another platform", "collateral", func(c *Collateral) { c.TCBInfo = other.TCBInfo }, at},
		{"TCB info respelt", "collateral", func(c *Collateral) { c.TCBInfo += " " }, at},
		{"TCB info for QE identity", "collateral", func(c *Collateral) {
			c.QEIdentity, c.QEIdentitySignature = c.TCBInfo, c.TCBInfoSignature
		}, at},
		{"signature of TCB info", "collateral", func(c *Collateral) { c.TCBInfoSignature = other.TCBInfoSignature }, at},
		{"no signature", "collateral", func(c *Collateral) { c.TCBInfoSignature = "" }, at},
		{"QE identity changed", "collateral", func(c *Collateral) { c.QEIdentity = strings.Replace(c.QEIdentity, `"isvprodid":2`, `"isvprodid":3`, 1) }, at},
		{"signature of QE identity", "collateral", func(c *Collateral) { c.QEIdentitySignature = c.TCBInfoSignature }, at},
		{"no root CRL", "collateral", func(c *Collateral) { c.RootCACRL = "" }, at},
		{"PCK CRL for root CRL", "collateral", func(c *Collateral) { c.RootCACRL = c.PCKCRL }, at},
		{"no PCK CRL", "collateral", func(c *Collateral) { c.PCKCRL = "" }, at},
		{"root CRL for PCK CRL", "collateral", func(c *Collateral) { c.PCKCRL = c.RootCACRL }, at},
		{"PCK CA for TCB signer", "collateral", func(c *Collateral) { c.TCBInfoIssuerChain = c.PCKCRLIssuerChain }, at},
		{"no chain", "collateral", func(c *Collateral) { c.QEIdentityIssuerChain = "" }, at},
		{"expired by an hour", "collateral_validity", func(*Collateral) {}, time.Date(2026, 3, 3, 15, 50, 0, 0, time.UTC)},
		{"clock an hour early", "", func(*Collateral) {}, at.Add(-time.Hour)},
		{"PCK not yet valid", "certificate_validity", func(*Collateral) {}, time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC)},
	} {
		c := good
		tt.edit(&c)
		v, err := New(Options{Collateral: oneCollateral{&c}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, tt.at)
		if verifier.RuleOf(err) != tt.rule || (err == nil) != (tt.rule == "") {
			t.Errorf("%s: got %v, expected rule %q", tt.name, err, tt.rule)
		}
		if err != nil && !verifier.IsLacking(err) {
			t.Errorf("%s: the quote is blamed for it: %v", tt.name, err)
		}
	}
}

// TestTDXRevocation: a serial on either CRL is refused, and older collateral
// that does not list it is no way out.
func TestTDXRevocation(t *testing.T) {
	quote, good, at := realTD(t)
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	q, err := parseQuote(quote)
	if err != nil {
		t.Fatal(err)
	}
	pck, err := checkPCKChain(q.pckChain, root)
	if err != nil {
		t.Fatal(err)
	}
	v, err := VerifyCollateral(&good, root)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.checkAt(at, pck, root); err != nil {
		t.Fatal(err)
	}
	leaf, ca := *v, *v
	leaf.pckCRL, ca.rootCRL = withSerial(v.pckCRL, pck.leaf), withSerial(v.rootCRL, pck.ca)
	signer := *v
	signer.rootCRL = withSerial(v.rootCRL, v.signers[0])
	for name, c := range map[string]VerifiedCollateral{"PCK": leaf, "PCK CA": ca, "TCB signer": signer} {
		if err := c.checkAt(at, pck, root); verifier.RuleOf(err) != "revocation" {
			t.Errorf("%s revoked: got %v", name, err)
		}
	}
	newer := leaf
	newer.tcb.NextUpdate = newer.tcb.NextUpdate.Add(time.Hour)
	a, b := &Collateral{}, &Collateral{}
	s := &Verifier{root: root, source: twoCollaterals{a, b}, verified: map[*Collateral]judgement{a: {c: v}, b: {c: &newer}}}
	if _, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, at); verifier.RuleOf(err) != "revocation" || verifier.IsLacking(err) {
		t.Errorf("revoked in the fresher of two: got %v", err)
	}
}

type twoCollaterals [2]*Collateral

func (o twoCollaterals) Collateral(context.Context, string, string) ([]*Collateral, error) {
	return o[:], nil
}

// TestTDXTCB: the platform's status is never hidden by the module's or the
// quoting enclave's.
func TestTDXTCB(t *testing.T) {
	q, pck, good, _ := parsedTD(t)
	for _, tt := range []struct {
		platform, module, qe, want string
	}{
		{"UpToDate", "UpToDate", "UpToDate", "UpToDate"},
		{"OutOfDate", "UpToDate", "UpToDate", "OutOfDate"},
		{"Revoked", "UpToDate", "UpToDate", "Revoked"},
		{"SWHardeningNeeded", "UpToDate", "UpToDate", "SWHardeningNeeded"},
		{"UpToDate", "OutOfDate", "UpToDate", "OutOfDate"},
		{"UpToDate", "Revoked", "UpToDate", "Revoked"},
		{"UpToDate", "UpToDate", "OutOfDate", "OutOfDate"},
		{"UpToDate", "UpToDate", "Revoked", "Revoked"},
		{"SWHardeningNeeded", "OutOfDate", "UpToDate", "OutOfDate"},
		{"ConfigurationNeeded", "UpToDate", "OutOfDate", "OutOfDateConfigurationNeeded"},
		{"ConfigurationAndSWHardeningNeeded", "OutOfDate", "UpToDate", "OutOfDateConfigurationNeeded"},
		{"OutOfDateConfigurationNeeded", "Revoked", "UpToDate", "Revoked"},
		{"Revoked", "OutOfDate", "OutOfDate", "Revoked"},
	} {
		v := &VerifiedCollateral{}
		for _, s := range []struct {
			text string
			out  any
		}{{good.TCBInfo, &v.tcb}, {good.QEIdentity, &v.qe}} {
			if err := json.Unmarshal([]byte(s.text), s.out); err != nil {
				t.Fatal(err)
			}
		}
		for i := range v.tcb.TcbLevels {
			setStatus(&v.tcb.TcbLevels[i].TcbStatus, tt.platform)
		}
		for i := range v.tcb.TdxModuleIdentities {
			for j := range v.tcb.TdxModuleIdentities[i].TcbLevels {
				setStatus(&v.tcb.TdxModuleIdentities[i].TcbLevels[j].TcbStatus, tt.module)
			}
		}
		setStatus(&v.qe.TcbLevels[0].TcbStatus, tt.qe)
		r, err := evaluateTCB(v, q.claims(), pck.ext, q.qe())
		if err != nil || r.overall != tt.want {
			t.Errorf("platform %s, module %s, QE %s: got %q, %v, expected %s", tt.platform, tt.module, tt.qe, r.overall, err, tt.want)
		}
	}
}

func setStatus[S ~string](p *S, status string) { *p = S(status) }

// TestTDXRelaunch: only what an update beneath the running TD has mended makes
// relaunching worth while.
func TestTDXRelaunch(t *testing.T) {
	for _, tt := range []struct{ launch, current, want string }{
		{"OutOfDate", "UpToDate", "TDRelaunchAdvised"},
		{"OutOfDate", "SWHardeningNeeded", "TDRelaunchAdvised"},
		{"OutOfDate", "ConfigurationNeeded", "TDRelaunchAdvisedConfigurationNeeded"},
		{"OutOfDate", "OutOfDate", "OutOfDate"},
		{"OutOfDate", "Revoked", "Revoked"},
		{"OutOfDateConfigurationNeeded", "UpToDate", "TDRelaunchAdvisedConfigurationNeeded"},
		{"OutOfDateConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"},
		{"Revoked", "UpToDate", "Revoked"},
		{"UpToDate", "OutOfDate", "OutOfDate"},
		{"UpToDate", "Revoked", "Revoked"},
		{"UpToDate", "", ""},
		{"ConfigurationNeeded", "SWHardeningNeeded", "ConfigurationNeeded"},
		{"ConfigurationNeeded", "UpToDate", "ConfigurationNeeded"},
	} {
		if got := relaunch(tt.launch, tt.current); got != tt.want {
			t.Errorf("launched %s, now %s: %s, expected %s", tt.launch, tt.current, got, tt.want)
		}
	}
	q, pck, good, root := parsedTD(t)
	v, err := VerifyCollateral(&good, root)
	if err != nil {
		t.Fatal(err)
	}
	c := q.claims()
	module := &v.tcb.TdxModuleIdentities[slices.IndexFunc(v.tcb.TdxModuleIdentities, func(m pcs.TdxModuleIdentity) bool { return m.ID == "TDX_01" })]
	worst := module.TcbLevels[len(module.TcbLevels)-1]
	if len(c.TEETCBSVN2) != 16 || len(module.TcbLevels) < 2 || worst.TcbStatus != "OutOfDate" {
		t.Fatal("the vector shows nothing: it needs TDX 1.5 and a module level that is out of date")
	}
	c.TEETCBSVN = bytes.Clone(c.TEETCBSVN2)
	c.TEETCBSVN[0] = byte(worst.Tcb.Isvsvn)
	r, err := evaluateTCB(v, c, pck.ext, q.qe())
	if err != nil || r.overall != verifier.TDRelaunchAdvised || r.module != "OutOfDate" {
		t.Errorf("launched on an old module, since updated: %+v, %v", r, err)
	}
	c.TEETCBSVN2 = c.TEETCBSVN
	if r, err = evaluateTCB(v, c, pck.ext, q.qe()); err != nil || r.overall != "OutOfDate" {
		t.Errorf("launched on an old module, never updated: %+v, %v", r, err)
	}
	c.TEETCBSVN2 = bytes.Clone(c.TEETCBSVN)
	c.TEETCBSVN2[1] = 0x77
	if _, err = evaluateTCB(v, c, pck.ext, q.qe()); verifier.RuleOf(err) != "tdx_module" {
		t.Errorf("a module of now that intel does not list: %v", err)
	}
}

// withSerial is crl with one more entry. Its signature is not looked at again.
func withSerial(crl *x509.RevocationList, c *x509.Certificate) *x509.RevocationList {
	l := *crl
	l.RevokedCertificateEntries = append(l.RevokedCertificateEntries[:len(l.RevokedCertificateEntries):len(l.RevokedCertificateEntries)],
		x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: verifiertest.Time})
	return &l
}

// TestChainNamesTheRoot: a signer's chain that ends in another root than the
// pinned one is refused, though the signer is the pinned one's.
func TestChainNamesTheRoot(t *testing.T) {
	n, other := newIntel(t), newIntel(t)
	mine, theirs := n.collateral(t).TCBInfoIssuerChain, other.collateral(t).TCBInfoIssuerChain
	if _, err := underRoot(mine, n.Root); err != nil {
		t.Fatal(err)
	}
	signer, _ := pem.Decode([]byte(mine))
	_, rest := pem.Decode([]byte(theirs))
	if _, err := underRoot(string(pem.EncodeToMemory(signer))+string(rest), n.Root); err == nil {
		t.Error("a chain with another root behind its signer is taken")
	}
}
