package verifier

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// EARProfile is the profile of the attestation results made here:
// draft-ietf-rats-ear-03, whose claim names Trustee and Veraison use too.
const EARProfile = "tag:ietf.org,2026:rats/ear#03"

// EARMediaType is that of an EAR as JWT.
const EARMediaType = `application/eat-jwt; eat_profile="` + EARProfile + `"`

// EAR is an AttestationResult as an EAT (draft-ietf-rats-ear-03, section 3).
type EAR struct {
	Profile    string                  `json:"eat_profile"`
	IssuedAt   int64                   `json:"iat"` // of the appraisal, Unix seconds
	Status     string                  `json:"ear.status"`
	VerifierID VerifierID              `json:"ear.verifier-id"`
	Submods    map[string]EARAppraisal `json:"submods"` // "cpu0"
}

// VerifierID says which program appraised.
type VerifierID struct {
	Developer string `json:"developer"`
	Build     string `json:"build"`
}

// EARAppraisal is the result for one attester. The policy, that is the digest
// of the Reference Values, is given under both names that drafts have had.
type EARAppraisal struct {
	Status    string               `json:"ear.status"`
	Vector    map[Trust]int8       `json:"ear.trustworthiness-vector"`
	PolicyID  string               `json:"ear.appraisal-policy-id"`
	PolicyIDs []string             `json:"ear.appraisal-policy-ids"`
	Evidence  EARAnnotatedEvidence `json:"ear.veraison.annotated-evidence"`
}

// EARAnnotatedEvidence is the claims and every rule they were held against.
type EARAnnotatedEvidence struct {
	TEE    kbs.TEE         `json:"tee"`
	Rules  []Rule          `json:"rules"`
	Claims json.RawMessage `json:"claims,omitempty"`
}

// Trust is a category of an AR4SI trustworthiness vector
// (draft-ietf-rats-ar4si, section 2.3.4).
type Trust string

// The categories that these rules make claims in. Of files, storage and
// sourced data they know nothing.
const (
	InstanceIdentity Trust = "instance-identity"
	Configuration    Trust = "configuration"
	Executables      Trust = "executables"
	Hardware         Trust = "hardware"
	RuntimeOpaque    Trust = "runtime-opaque"
)

// Values of trustworthiness claims; each is the first of its tier.
const (
	trustAffirming       = 2
	trustWarning         = 32
	trustContraindicated = 96
)

// trustOf is the category that a rule tells of. What is not listed counts as
// configuration.
func trustOf(rule string) Trust {
	if strings.HasPrefix(rule, "rtmr") || strings.HasPrefix(rule, "pcr") || strings.HasPrefix(rule, "event_log") {
		return Executables
	}
	if strings.HasPrefix(rule, "platform_info_") || strings.HasPrefix(rule, advisoryPrefix) {
		return Hardware
	}
	if strings.HasPrefix(rule, "vtpm_") || strings.HasPrefix(rule, "session_") {
		return InstanceIdentity
	}
	switch rule {
	case "certificate_chain", "certificate_validity", "certificate_chip_id", "signer", "chip_id", "machine_id", "machine_incident", "signature", "endorsement", "revocation",
		"qe_report_signature", "attestation_key", "report_data", "tee_key", "runtime_data", "evidence_format", "certificate_table":
		return InstanceIdentity
	case "certificate_tcb", "minimum_tcb", "minimum_tcb_evaluation", "mitigations", "tcb_history", "product", "silicon", "provisional_firmware", "tcb_status", "tcb_level", "advisories", "tdx_module", "mr_seam",
		"mr_signer_seam", "seam_attributes", "qe_identity", "qe_vendor", "collateral", "collateral_validity", "minimum_tee_tcb", "report_version", "quote_version":
		return Hardware
	case "measurement", "mrtd", "mrtd_proves_payload", "id_key_digest", "author_key_digest", "guest_svn", "identity_digest", "footer_digest":
		return Executables
	case "debug", "migrate_ma", "migratable", "migration_agent", "vmpl", "cxl", "smt", "page_swap_disable", "perfmon", "sept_ve_disable", "mr_service_td", "td_attributes":
		return RuntimeOpaque
	}
	return Configuration
}

// NewEAR is r as an EAR. policy identifies the Reference Values. It affirms
// only what r affirms, and warns where r affirms by leave of the Reference
// Values alone.
func NewEAR(r kbs.AttestationResult, by VerifierID, policy string, at time.Time) (EAR, error) {
	if at.IsZero() || policy == "" || by.Developer == "" || by.Build == "" {
		return EAR{}, errors.New("making an EAR without time, policy or verifier")
	}
	vector := map[Trust]int8{}
	for _, rule := range r.Rules {
		v := int8(trustAffirming)
		if !rule.Pass {
			v = trustContraindicated
		}
		vector[trustOf(rule.Rule)] = max(v, vector[trustOf(rule.Rule)])
	}
	if err := warn(vector, r.Rules, r.Claims); err != nil {
		return EAR{}, err
	}
	worst := int8(trustAffirming)
	for _, v := range vector {
		worst = max(worst, v)
	}
	if r.Result != Affirming || len(vector) == 0 {
		worst = trustContraindicated
	}
	if len(vector) == 0 { // which the profile forbids
		vector[InstanceIdentity] = trustContraindicated
	}
	status := map[int8]string{trustAffirming: Affirming, trustWarning: "warning", trustContraindicated: Contraindicated}[worst]
	a := EARAppraisal{Status: status, Vector: vector, PolicyID: policy, PolicyIDs: []string{policy},
		Evidence: EARAnnotatedEvidence{TEE: r.TEE, Rules: r.Rules, Claims: r.Claims}}
	return EAR{Profile: EARProfile, IssuedAt: at.Unix(), Status: status, VerifierID: by, Submods: map[string]EARAppraisal{"cpu0": a}}, nil
}

// warn lowers the categories in which the claims are accepted but not good.
func warn(vector map[Trust]int8, rules []Rule, claims json.RawMessage) error {
	if len(claims) == 0 {
		return nil
	}
	var c Claims
	if err := json.Unmarshal(claims, &c); err != nil {
		return fmt.Errorf("reading claims: %w", err)
	}
	booted := slices.ContainsFunc(rules, func(r Rule) bool { return strings.HasPrefix(r.Rule, "pcr") && r.Rule != "pcrs_registered" })
	lower := func(t Trust, weak bool) {
		if weak {
			vector[t] = max(trustWarning, vector[t])
		}
	}
	lower(Executables, c.VTPM != nil && !booted)
	lower(Hardware, slices.ContainsFunc(rules, func(r Rule) bool { return strings.HasPrefix(r.Rule, advisoryPrefix) }))
	if s := c.SNP; s != nil {
		lower(RuntimeOpaque, s.Policy.Debug || s.Policy.MigrateMA)
		lower(Hardware, s.CurrentTCB != s.CommittedTCB || s.Current != s.Committed)
	}
	if t := c.TDX; t != nil {
		lower(RuntimeOpaque, t.TDAttributes&(TDDebug|TDMigratable|TDPerfMon) != 0)
		lower(Hardware, t.TCBStatus != UpToDate)
	}
	return nil
}

// Wire is r in the form that the protocols and NewEAR take.
func (r AttestationResult) Wire() (kbs.AttestationResult, error) {
	w := kbs.AttestationResult{TEE: r.TEE, Result: r.Result, Rules: r.Rules}
	if r.Claims == nil {
		return w, nil
	}
	var err error
	w.Claims, err = json.Marshal(r.Claims)
	return w, err
}

// JWT signs e with ES256 (RFC 7518, section 3.4). Its header names the key by
// its thumbprint: a key that came along would prove nothing.
func (e EAR) JWT(key *ecdsa.PrivateKey) (string, error) {
	public, err := publicJWK(&key.PublicKey)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: public.KeyID}},
		new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("signing an EAR: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing an EAR: %w", err)
	}
	return signed.CompactSerialize()
}

// NewJWKSet is what GET /v1/jwks answers: public keys that sign EARs, all on
// P-256 (RFC 7517).
func NewJWKSet(keys ...*ecdsa.PublicKey) (jose.JSONWebKeySet, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		j, err := publicJWK(k)
		if err != nil {
			return jose.JSONWebKeySet{}, err
		}
		set.Keys = append(set.Keys, j)
	}
	return set, nil
}

// publicJWK names the key by its RFC 7638 thumbprint.
func publicJWK(k *ecdsa.PublicKey) (jose.JSONWebKey, error) {
	if k == nil || k.Curve != elliptic.P256() {
		return jose.JSONWebKey{}, errors.New("key for ES256 is not on curve P-256")
	}
	j := jose.JSONWebKey{Key: k, Algorithm: string(jose.ES256), Use: "sig"}
	sum, err := j.Thumbprint(crypto.SHA256)
	j.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	return j, err
}
