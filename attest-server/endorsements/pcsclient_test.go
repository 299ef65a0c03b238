package endorsements

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// ofPcsClient is c as Intel's PcsClientTool writes it: JSON made anew with spaces,
// identities as text, chains as in the PCS's headers.
func ofPcsClient(t testing.TB, c *tdx.Collateral, change func(map[string]any)) []byte {
	t.Helper()
	fmspc, err := c.FMSPC()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{
		"version":    4,
		"pck_certs":  []any{},
		"tcbinfos":   []any{map[string]any{"fmspc": "00906ED50000"}, map[string]any{"fmspc": fmspc, "sgx_tcbinfo": map[string]any{}, "tdx_tcbinfo": json.RawMessage(`{"tcbInfo":` + c.TCBInfo + `,"signature":"` + c.TCBInfoSignature + `"}`)}},
		"pckcacrl":   map[string]any{"platformCrl": c.PCKCRL, "processorCrl": c.PCKCRL},
		"qeidentity": "", "tdqeidentity": `{"enclaveIdentity":` + c.QEIdentity + `,"signature":"` + c.QEIdentitySignature + `"}`,
		"certificates": map[string]any{
			"SGX-PCK-Certificate-Issuer-Chain":  map[string]any{"PLATFORM": url.PathEscape(c.PCKCRLIssuerChain)},
			"TCB-Info-Issuer-Chain":             url.PathEscape(c.TCBInfoIssuerChain),
			"SGX-Enclave-Identity-Issuer-Chain": c.QEIdentityIssuerChain,
		},
		"rootcacrl": c.RootCACRL,
	}
	if change != nil {
		change(all)
	}
	b, err := json.MarshalIndent(map[string]any{"platforms": []any{map[string]any{"enc_ppid": ""}}, "collaterals": all}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPcsClientTool: the file of Intel's procedure for machines without a network
// is taken by all that reads collateral, and a quote verifies under it.
func TestPcsClientTool(t *testing.T) {
	t.Run("self-made", func(t *testing.T) {
		n := vendortest.NewIntel(t)
		cache, err := OpenCache(CacheOptions{Dir: t.TempDir(), IntelRoot: n.Root})
		if err != nil {
			t.Fatal(err)
		}
		v := func(s tdx.CollateralSource) (*tdx.Verifier, error) {
			return tdx.New(tdx.Options{Root: n.Root, Collateral: s})
		}
		testPcsClient(t, cache, v, n.Quote(t, verifiertest.Body([]byte{1})), n.Publish(t), verifiertest.Time)
	})
	t.Run("real", func(t *testing.T) {
		quote, c, at := vendortest.RealTD(t)
		cache, err := OpenCache(CacheOptions{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		v := func(s tdx.CollateralSource) (*tdx.Verifier, error) { return tdx.New(tdx.Options{Collateral: s}) }
		testPcsClient(t, cache, v, quote, &c, at)
	})
}

func testPcsClient(t *testing.T, cache *Cache, verifierOf func(tdx.CollateralSource) (*tdx.Verifier, error), quote []byte, c *tdx.Collateral, at time.Time) {
	file := filepath.Join(t.TempDir(), "platform_collaterals.json")
	if err := os.WriteFile(file, ofPcsClient(t, c, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{Added, Known} {
		o, err := cache.Import(file)
		if err != nil || len(o) != 1 || o[0].Result != want || o[0].Endorsement == nil || o[0].Endorsement.Kind != KindCollateral {
			t.Fatalf("Import = %+v, %v, expected one %s", o, err, want)
		}
	}
	bundle, err := LoadBundle(fstest.MapFS{"platform_collaterals.json": {Data: ofPcsClient(t, c, nil)}})
	if err != nil || len(bundle.Skipped()) > 0 {
		t.Fatal(bundle, err)
	}
	for name, source := range map[string]tdx.CollateralSource{"cache": cache, "bundle": bundle} {
		v, err := verifierOf(source)
		if err == nil {
			_, err = v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, at)
		}
		if err != nil {
			t.Errorf("under the %s: %v", name, err)
		}
	}
}

// TestPcsClientToolRefused: what is missing or altered in it is refused, and
// named.
func TestPcsClientToolRefused(t *testing.T) {
	n := vendortest.NewIntel(t)
	c := n.Publish(t)
	certificates := func(m map[string]any) map[string]any { return m["certificates"].(map[string]any) }
	for name, x := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"no PCK chain":   {func(m map[string]any) { certificates(m)["SGX-PCK-Certificate-Issuer-Chain"] = map[string]any{} }, "-i platform_list.json"},
		"no TDX":         {func(m map[string]any) { m["tcbinfos"] = m["tcbinfos"].([]any)[:1] }, "no platform with TDX"},
		"no QE identity": {func(m map[string]any) { delete(m, "tdqeidentity") }, "tdqeidentity"},
		"no root CRL":    {func(m map[string]any) { m["rootcacrl"] = "" }, "root CA CRL"},
		"altered": {func(m map[string]any) {
			m["tdqeidentity"] = strings.Replace(m["tdqeidentity"].(string), `"isvprodid":2`, `"isvprodid":3`, 1)
		}, "QE identity"},
		"another's chain": {func(m map[string]any) { certificates(m)["TCB-Info-Issuer-Chain"] = "%zz" }, "issuer chain"},
		"too many": {func(m map[string]any) {
			for range maxPlatforms {
				m["tcbinfos"] = append(m["tcbinfos"].([]any), map[string]any{})
			}
		}, "258 platforms"},
	} {
		cache, err := OpenCache(CacheOptions{IntelRoot: n.Root})
		if err != nil {
			t.Fatal(err)
		}
		o, err := cache.ImportBytes("f", ofPcsClient(t, c, x.change))
		if err != nil || len(o) != 1 || o[0].Result != Refused || !strings.Contains(o[0].Reason, x.want) || len(cache.List()) > 0 {
			t.Errorf("%s: %+v, %v, expected %q", name, o, err, x.want)
		}
	}
}

// TestIntelsChainsAreNeedless: a folder of Intel's own, with its root and chains
// beside the collateral, is imported without a refusal; a stranger's is not.
func TestIntelsChainsAreNeedless(t *testing.T) {
	n, stranger := vendortest.NewIntel(t), vendortest.NewIntel(t)
	c := n.Publish(t)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"td.collateral.json": b, "root.der": n.Root.Raw, "tcb_signing_chain.pem": []byte(c.TCBInfoIssuerChain),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cache, err := OpenCache(CacheOptions{IntelRoot: n.Root})
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := cache.Import(dir)
	if err != nil || len(outcomes) != 4 || len(cache.List()) != 1 {
		t.Errorf("%d outcomes, %d kept, %v", len(outcomes), len(cache.List()), err)
	}
	for _, o := range outcomes {
		if o.Result == Refused || o.Result == Needless && o.Reason == "" {
			t.Errorf("%+v", o)
		}
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.Root.Raw})
	if o, err := cache.ImportBytes("stranger.pem", text); err != nil || len(o) != 1 || o[0].Result != Refused {
		t.Errorf("a stranger's root: %+v, %v", o, err)
	}
}
