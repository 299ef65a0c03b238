package attestserver

import (
	"net/http"
	"slices"

	"github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/legacy"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/trustee"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
)

const (
	maxForeignAuth = 4 << 10
	maxForeignBody = 1 << 20 // Evidence and that of devices
	maxForeignMore = 1 << 20 // beside a TD's Evidence: key, devices, init-data
)

// foreign answers in other projects' dialects, which share their paths.
type foreign struct {
	answers       answer.Responder
	speaksTrustee bool
	speaksLegacy  bool
	trustee       *trustee.API
	owners        *trustee.Admin
	legacy        *legacy.API
}

func newForeign(c Config, e *release.Engine, sessions *session.Sessions, owners *admin.API, answers answer.Responder) *foreign {
	resources, workloads := *owners.Resources, *owners.Workloads
	resources.Log = c.Log.With("dialect", session.Trustee)
	workloads.Log = c.Log.With("type", kbs.TypeLegacy)
	return &foreign{
		answers:       answers,
		speaksTrustee: slices.Contains(c.Dialects, session.Trustee),
		speaksLegacy:  slices.Contains(c.Dialects, session.Legacy),
		trustee: &trustee.API{
			Sessions: sessions, Engine: e, Verifies: c.verifies, Life: c.SessionLife, Clock: c.Clock, Log: c.Log,
		},
		owners: &trustee.Admin{Gate: owners.Gate, Turns: owners.Turns, Resources: &resources},
		legacy: &legacy.API{Sessions: sessions, Engine: e, Gate: owners.Gate, Turns: owners.Turns, Workloads: &workloads, Log: c.Log},
	}
}

// foreignHandler gets the body read and bounded.
type foreignHandler func(w http.ResponseWriter, r *http.Request, body []byte) error

func (f *foreign) routes(mux *answer.Router) {
	if !f.speaksTrustee && !f.speaksLegacy {
		return
	}
	mux.HandleFunc("POST /kbs/v0/auth", f.byBody(func(*http.Request) int64 { return maxForeignAuth }, legacy.IsAuth, f.trustee.Auth, f.legacy.Auth))
	mux.HandleFunc("POST /kbs/v0/attest", f.inSession(f.byBody(f.maxAttest, legacy.IsAttest, f.trustee.Attest, f.legacy.Attest)))
	if f.speaksTrustee {
		mux.HandleFunc("GET /kbs/v0/resource/{path...}", f.answers.Respond(answer.ErrorInformation, f.trustee.Resource))
		f.owners.Routes(mux, f.answers)
	}
	if f.speaksLegacy {
		mux.HandleFunc("GET /kbs/v0/key/{id}", f.answers.Respond(answer.Text, f.legacy.Key))
		mux.HandleFunc("POST /kbs/v0/register_workload", f.answers.Respond(answer.Text, f.legacy.Register))
	}
	mux.HandleFunc("/kbs/v0/", f.answers.Respond(f.errors(), func(http.ResponseWriter, *http.Request) error {
		return refusal.NewKind("PluginNotFound", kbs.CodeNotFound, "no such path, method or plugin")
	}))
}

// errors is the form of an error under /kbs/v0 that is in no dialect.
func (f *foreign) errors() answer.Form {
	switch {
	case f.speaksTrustee:
		return answer.ErrorInformation
	case f.speaksLegacy:
		return answer.Text
	}
	return answer.Problem
}

// byBody hands a request to the dialect it is in.
func (f *foreign) byBody(limit func(*http.Request) int64, isLegacy func([]byte) bool, trustee, legacy foreignHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := answer.ReadBody(w, r, limit(r))
		h, form := trustee, answer.Form(answer.ErrorInformation)
		if !f.speaksTrustee || f.speaksLegacy && err == nil && isLegacy(body) {
			h, form = legacy, answer.Text
		}
		f.answers.Respond(form, func(w http.ResponseWriter, r *http.Request) error {
			if err != nil {
				return err
			}
			return h(w, r, body)
		})(w, r)
	}
}

// inSession refuses who is in no session of any dialect before their body is
// read. Whose session it is, and whether the body is in its dialect, is h's
// business.
func (f *foreign) inSession(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var err error
		form := answer.Form(answer.ErrorInformation)
		if f.speaksTrustee {
			err = f.trustee.InSession(r)
		}
		if f.speaksLegacy && (!f.speaksTrustee || err != nil) {
			legacyErr := f.legacy.InSession(r)
			if !f.speaksTrustee || legacyErr == nil || f.legacy.HasCookie(r) {
				err, form = legacyErr, answer.Text
			}
		}
		if err != nil {
			f.answers.Respond(form, func(http.ResponseWriter, *http.Request) error { return err })(w, r)
			return
		}
		h(w, r)
	}
}

// maxAttest bounds the body of an attest. Only a TD's may hold an event log,
// of a MiB before base64.
func (f *foreign) maxAttest(r *http.Request) int64 {
	if f.speaksTrustee && f.trustee.OfTD(r) {
		return evidence.MaxBytes + maxForeignMore
	}
	return maxForeignBody
}
