package attestserver

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/secret"
)

// legacyProfile marks a measurement that the registrar computed with tools of
// others.
const legacyProfile = "legacy"

// Bits of tee_config's flags that a registrar can mean: buildah sets all.
const legacySMT = 1 << 0

type legacyRegistration struct {
	WorkloadID  string `json:"workload_id"`
	Measurement string `json:"launch_measurement"`
	TEEConfig   string `json:"tee_config"` // JSON again
	Passphrase  string `json:"passphrase"`
}

// legacyRegister takes what `buildah mkcw` sends. Its client can send no
// header of its own, but a user in its URL (https://x:TOKEN@HOST), which
// arrives as Basic authentication; a bearer token will do too.
func (s *Server) legacyRegister(w http.ResponseWriter, r *http.Request) error {
	t, err := s.authorize(r, publishing, basicToken(r))
	if err != nil {
		return err
	}
	var req legacyRegistration
	if err := answer.ReadJSON(w, r, maxForeignBody>>4, &req); err != nil {
		return err
	}
	passphrase := secret.New([]byte(req.Passphrase))
	defer passphrase.Wipe()
	reg, err := req.registration()
	if err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	if err := mayRegister(t, reg.WorkloadID); err != nil {
		return err
	}
	if err := s.checkRegistration(reg, passphrase); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	if err := s.engine.Policies.CheckRegistration(r.Context(), reg); err != nil {
		return err
	}
	created, err := s.Store.Register(r.Context(), reg, passphrase, actor(t))
	if err != nil {
		return registerProblem(err, t)
	}
	if created {
		s.Log.Info("workload registered", "workload", reg.WorkloadID, "by", actor(t), "type", kbs.TypeLegacy)
	}
	var warning string
	if n, limit := legacyURLLength(r, reg.WorkloadID), 99; n > limit {
		warning = fmt.Sprintf("the key's URL has %d characters, but libkrun's old client has room for %d: use a shorter URL or workload id\n", n, limit)
		s.Log.Warn("the old client will not fetch this workload's key", "workload", reg.WorkloadID, "url_length", n, "limit", limit)
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

// legacyURLLength is that of the URL under which the client will ask for the
// key, if it uses the same host as the registrar.
func legacyURLLength(r *http.Request, id string) int {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return len(scheme + r.Host + answer.ForeignPrefix + "key/" + id)
}

func (l legacyRegistration) registration() (kbs.Registration, error) {
	var d kbs.LaunchDigest
	if err := d.UnmarshalText([]byte(strings.ToLower(l.Measurement))); err != nil {
		return kbs.Registration{}, fmt.Errorf("launch_measurement: %w", err)
	}
	rules, err := legacyRules(l.TEEConfig)
	if err != nil {
		return kbs.Registration{}, fmt.Errorf("tee_config: %w", err)
	}
	return kbs.Registration{
		Version: 1, WorkloadID: l.WorkloadID, Type: kbs.TypeLegacy,
		ReferenceValues: kbs.ReferenceValues{
			TEE: kbs.SNP, SNP: rules,
			Measurements: []kbs.Measurement{{LaunchDigest: d, Profile: legacyProfile}},
		},
	}, nil
}

// legacyRules makes rules of tee_config where it asks for more than the
// default. What it would allow, debugging and migration, is not meant: buildah
// writes these bits for everybody, and no guest of libkrun needs them.
func legacyRules(config string) (*kbs.SNPRules, error) {
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
	r.ForbidSMT = c.Flags.Bits != nil && *c.Flags.Bits&legacySMT == 0
	if r.MinimumABI == nil && !r.ForbidSMT {
		return nil, nil
	}
	return &r, nil
}

// checkForeign refuses registrations that claim an identity their guests
// cannot prove, and of the legacy type all that register_workload could not
// have said: its guests run stock firmware, so the little there is must hold.
func checkForeign(reg kbs.Registration, diskKey secret.Bytes) error {
	if !reg.IdentityDigest.IsZero() || !reg.FooterDigest.IsZero() {
		return fmt.Errorf("registration of type %s with identity_digest or footer_digest, which its guests cannot prove", reg.Type)
	}
	if reg.Type != kbs.TypeLegacy {
		return nil
	}
	rules := kbs.SNPRules{}
	if reg.ReferenceValues.SNP != nil {
		rules = *reg.ReferenceValues.SNP
	}
	switch {
	case reg.ReferenceValues.TEE != kbs.SNP || len(reg.ReferenceValues.Measurements) != 1:
		return errors.New("registration of type legacy: expected tee snp and one measurement")
	case rules.AllowDebug || rules.AllowMigrateMA || rules.AllowProvisional || rules.AllowCXL || rules.VMPL != 0 || rules.HostData != "":
		return errors.New("registration of type legacy with rules looser than the default")
	case diskKey.Len() > recipient.MaxPassphrase:
		return fmt.Errorf("passphrase of %d bytes, at most %d fit into the answer to an old client", diskKey.Len(), recipient.MaxPassphrase)
	case strings.ContainsRune(string(diskKey.Reveal()), 0):
		return errors.New("passphrase with a NUL, at which the old client would cut it")
	}
	return nil
}
