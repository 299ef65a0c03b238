package endorsements

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// platformCollaterals is the file that Intel's PcsClientTool fetches for machines
// without a network, platform_collaterals.json: what the PCS answered for many
// platforms. TCB info came as JSON and was written anew, with other white space
// than Intel signed; identities are the text of the answer.
type platformCollaterals struct {
	Collaterals *struct {
		TCBInfos []struct {
			FMSPC         string          `json:"fmspc"`
			TDXTCB        json.RawMessage `json:"tdx_tcbinfo"`
			TDXTCBOfEarly json.RawMessage `json:"tdx_tcbinfo_early"`
		} `json:"tcbinfos"`
		PCKCRLs struct {
			Processor string `json:"processorCrl"`
			Platform  string `json:"platformCrl"`
		} `json:"pckcacrl"`
		TDQE         json.RawMessage `json:"tdqeidentity"`
		TDQEOfEarly  json.RawMessage `json:"tdqeidentity_early"`
		RootCRL      string          `json:"rootcacrl"`
		Certificates struct {
			PCK map[string]string `json:"SGX-PCK-Certificate-Issuer-Chain"`
			TCB string            `json:"TCB-Info-Issuer-Chain"`
			QE  string            `json:"SGX-Enclave-Identity-Issuer-Chain"`
		} `json:"certificates"`
	} `json:"collaterals"`
}

// maxPlatforms bounds the platforms of one such file.
const maxPlatforms = 256

// splitPlatforms makes a *.collateral.json of each platform and PCK CA in a
// platform_collaterals.json. is says whether content is one.
func splitPlatforms(name string, content []byte) (parts []part, is bool) {
	var f platformCollaterals
	if err := json.Unmarshal(content, &f); err != nil || f.Collaterals == nil {
		return nil, false
	}
	if err := kbs.UnmarshalOpen(content, &f); err != nil {
		return []part{{name: name, err: err}}, true
	}
	refuse := func(format string, a ...any) ([]part, bool) {
		return []part{{name: name, err: fmt.Errorf(format, a...)}}, true
	}
	c := f.Collaterals
	if len(c.TCBInfos) > maxPlatforms {
		return refuse("%d platforms, expected at most %d", len(c.TCBInfos), maxPlatforms)
	}
	cas := map[string]string{"PLATFORM": c.PCKCRLs.Platform, "PROCESSOR": c.PCKCRLs.Processor}
	for _, t := range c.TCBInfos {
		tcb, qe := firstOf(t.TDXTCB, t.TDXTCBOfEarly), firstOf(c.TDQE, c.TDQEOfEarly)
		if tcb == nil {
			continue // of SGX alone
		}
		for _, ca := range []string{"PLATFORM", "PROCESSOR"} {
			if c.Certificates.PCK[ca] == "" {
				continue
			}
			p := part{name: fmt.Sprintf("%s[%s %s]", name, t.FMSPC, strings.ToLower(ca))}
			p.content, p.err = collateralOf(tcb, qe, tdx.Collateral{
				RootCACRL: c.RootCRL, PCKCRL: cas[ca], PCKCRLIssuerChain: c.Certificates.PCK[ca],
				TCBInfoIssuerChain: c.Certificates.TCB, QEIdentityIssuerChain: cmp.Or(c.Certificates.QE, c.Certificates.TCB),
			})
			parts = append(parts, p)
		}
	}
	switch {
	case parts != nil:
		return parts, true
	case len(c.Certificates.PCK) == 0:
		return refuse("no SGX-PCK-Certificate-Issuer-Chain, without which nobody knows whose the PCK CRLs are: fetch it for a list of platforms, `pcsclient fetch -i platform_list.json`")
	}
	return refuse("no platform with TDX in it")
}

// firstOf is the first that is there: TCB data of the standard kind if both are.
func firstOf(all ...json.RawMessage) json.RawMessage {
	for _, raw := range all {
		if len(raw) > 0 && string(raw) != "null" && string(raw) != `""` {
			return raw
		}
	}
	return nil
}

// collateralOf is c with the signed parts filled in, in JSON.
func collateralOf(tcb, qe json.RawMessage, c tdx.Collateral) (b []byte, err error) {
	if c.TCBInfo, c.TCBInfoSignature, err = signedBody(tcb, "tcbInfo"); err != nil {
		return nil, fmt.Errorf("reading tdx_tcbinfo: %w", err)
	}
	if c.QEIdentity, c.QEIdentitySignature, err = signedBody(qe, "enclaveIdentity"); err != nil {
		return nil, fmt.Errorf("reading tdqeidentity: %w", err)
	}
	for _, chain := range []*string{&c.PCKCRLIssuerChain, &c.TCBInfoIssuerChain, &c.QEIdentityIssuerChain} {
		if *chain, err = url.PathUnescape(*chain); err != nil { // as the PCS's headers have it
			return nil, fmt.Errorf("reading an issuer chain: %w", err)
		}
	}
	c.RootCACRL, c.PCKCRL = hexCRL([]byte(c.RootCACRL)), hexCRL([]byte(c.PCKCRL))
	return json.Marshal(c)
}

// signedBody is the member of that name and its signature, in Intel's own
// spelling: without white space. raw is an object, or a string that holds one.
func signedBody(raw json.RawMessage, name string) (body, signature string, err error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		raw = json.RawMessage(text)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", "", err
	}
	if err := json.Unmarshal(m["signature"], &signature); err != nil || m[name] == nil {
		return "", "", errors.Join(fmt.Errorf("no %s with a signature", name), err)
	}
	var b bytes.Buffer
	err = json.Compact(&b, m[name])
	return b.String(), signature, err
}

// hexCRL is a CRL in hex; a PCCS may serve it in hex already.
func hexCRL(b []byte) string {
	if len(b) > 0 && b[0] == 0x30 {
		if _, err := hex.DecodeString(string(b)); err != nil {
			return hex.EncodeToString(b)
		}
	}
	return strings.TrimSpace(string(b))
}
