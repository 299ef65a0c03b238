package legacy

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/secret"
)

// profile marks a measurement that the registrar computed with tools of
// others.
const profile = "legacy"

// Bits of tee_config's flags that a registrar can mean: buildah sets all.
const smtAllowed = 1 << 0

const maxRegisterBody = 64 << 10

type registration struct {
	WorkloadID  string `json:"workload_id"`
	Measurement string `json:"launch_measurement"`
	TEEConfig   string `json:"tee_config"` // JSON again
	Passphrase  string `json:"passphrase"`
}

// Register takes what `buildah mkcw` sends. Its client can send no header of
// its own, but a user in its URL (https://x:TOKEN@HOST), which arrives as Basic
// authentication; a bearer token will do too.
func (a *API) Register(w http.ResponseWriter, r *http.Request) error {
	t, err := a.Gate.Authorize(r, admin.Publishing, basicToken(r))
	if err != nil {
		return err
	}
	var req registration
	if err := answer.ReadJSON(w, r, maxRegisterBody, &req); err != nil {
		return err
	}
	passphrase := secret.New([]byte(req.Passphrase))
	defer passphrase.Wipe()
	reg, err := req.record()
	if err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	register := func() error {
		leave, err := a.Turns.Changes.Enter(r.Context(), t.Tenant)
		if err != nil {
			return err
		}
		defer leave()
		_, err = a.Workloads.Register(r.Context(), reg, passphrase, t)
		return err
	}
	if err := register(); err != nil {
		return err
	}
	var warning string
	if n, limit := urlLength(r, reg.WorkloadID), 99; n > limit {
		warning = fmt.Sprintf("the key's URL has %d characters, but libkrun's old client has room for %d: use a shorter URL or workload id\n", n, limit)
		a.Log.Warn("the old client will not fetch this workload's key", "workload", reg.WorkloadID, "url_length", n, "limit", limit)
	}
	return answer.WriteWhole(w, "text/plain; charset=utf-8", []byte(warning)) // buildah takes 200 and 202 only
}

// basicToken is the token given as a password or as a bearer.
func basicToken(r *http.Request) secret.Bytes {
	if _, password, ok := r.BasicAuth(); ok && len(r.Header.Values("Authorization")) == 1 {
		return secret.New([]byte(password))
	}
	return answer.Bearer(r)
}

// urlLength is that of the URL under which the client will ask for the key, if
// it uses the same host as the registrar.
func urlLength(r *http.Request, id string) int {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return len(scheme + r.Host + answer.ForeignPrefix + "key/" + id)
}

func (l registration) record() (kbs.Registration, error) {
	var d kbs.LaunchDigest
	if err := d.UnmarshalText([]byte(strings.ToLower(l.Measurement))); err != nil {
		return kbs.Registration{}, fmt.Errorf("launch_measurement: %w", err)
	}
	rules, err := rulesOf(l.TEEConfig)
	if err != nil {
		return kbs.Registration{}, fmt.Errorf("tee_config: %w", err)
	}
	return kbs.Registration{
		Version: 1, WorkloadID: l.WorkloadID, Type: kbs.TypeLegacy,
		ReferenceValues: kbs.ReferenceValues{
			TEE: kbs.SNP, SNP: rules,
			Measurements: []kbs.Measurement{{LaunchDigest: d, Profile: profile}},
		},
	}, nil
}

// rulesOf makes rules of tee_config where it asks for more than the
// default. What it would allow, debugging and migration, is not meant: buildah
// writes these bits for everybody, and no guest of libkrun needs them.
func rulesOf(config string) (*kbs.SNPRules, error) {
	if config == "" {
		return nil, nil
	}
	var c struct {
		Flags struct {
			Bits *uint64 `json:"bits"`
		} `json:"flags"`
		MinFW struct {
			Major uint8 `json:"major"`
			Minor uint8 `json:"minor"`
		} `json:"minfw"`
	}
	if err := kbs.UnmarshalOpen([]byte(config), &c); err != nil {
		return nil, err
	}
	var r kbs.SNPRules
	if c.MinFW.Major != 0 || c.MinFW.Minor != 0 {
		r.MinimumABI = &kbs.SNPABI{Major: c.MinFW.Major, Minor: c.MinFW.Minor}
	}
	r.ForbidSMT = c.Flags.Bits != nil && *c.Flags.Bits&smtAllowed == 0
	if r.MinimumABI == nil && !r.ForbidSMT {
		return nil, nil
	}
	return &r, nil
}
