package trustee

import (
	"errors"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// Of the trustee dialect's admin side there is what `kbs-client config
// set-resource` and `delete-resource` send, with a token of ours as
// --admin-token-file. Its policies are programs in Rego and its Reference
// Values the server's, not a workload's: here there is nothing that they could
// mean, and taking them without effect would be a lie about security.

// Admin answers owners in the dialect. All fields are needed.
type Admin struct {
	Gate      *admin.Gate
	Turns     *admin.Turns
	Resources *admin.Resources
}

// Routes registers what Admin answers.
func (a *Admin) Routes(mux *answer.Router, answers answer.Responder) {
	mux.HandleFunc("POST /kbs/v0/resource/{repo}/{type}/{tag}", answers.Respond(answer.ErrorInformation, a.admit(admin.Turn(a.Turns.Resources, kbs.MaxResourceBytes, a.setResource))))
	mux.HandleFunc("DELETE /kbs/v0/resource/{repo}/{type}/{tag}", answers.Respond(answer.ErrorInformation, a.admit(admin.Turn(a.Turns.Resources, 0, a.deleteResource))))
	for path, instead := range map[string]string{
		"resource-policy":         "no Rego policies here: ccrun resource set --workload gives each resource its own",
		"attestation-policy":      "no Rego policies here: a workload's rules are in its registration, see ccrun register",
		"reference-value":         "Reference Values belong to a workload's registration: ccrun register",
		"reference-value/{id...}": "Reference Values belong to a workload's registration: ccrun workload show",
	} {
		mux.HandleFunc("/kbs/v0/"+path, answers.Respond(answer.ErrorInformation, func(http.ResponseWriter, *http.Request) error {
			return refusal.NewKind("PluginNotFound", kbs.CodeNotFound, "%s", instead)
		}))
	}
}

// admit is Gate.Admit with the dialect's errors and its empty answer.
func (a *Admin) admit(h admin.Handler) answer.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := a.Gate.Admit(admin.Publishing, h)(w, r); err != nil {
			return asAdminRefusal(err)
		}
		return answer.WriteWhole(w, "text/xml", nil)
	}
}

// asAdminRefusal gives refusals the kind that Trustee has for them.
func asAdminRefusal(err error) error {
	var e *refusal.Error
	if !errors.As(err, &e) || e.Kind != "" {
		return err
	}
	as := *e
	switch e.Code {
	case kbs.CodeUnauthorized, kbs.CodeForbidden:
		as.Kind = "AdminAuthAccess"
	case kbs.CodeNotFound, kbs.CodeQuota:
		as.Kind = "PluginInternalError"
	}
	return &as
}

// setResource stores the body as it is: the dialect names no policy.
func (a *Admin) setResource(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, err := admin.WritableResource(r, t)
	if err != nil {
		return err
	}
	body, err := answer.ReadBody(w, r, kbs.MaxResourceBytes)
	if err != nil {
		return err
	}
	value := secret.New(body)
	defer value.Wipe()
	return a.Resources.SetValue(r.Context(), id, value, t)
}

func (a *Admin) deleteResource(_ http.ResponseWriter, r *http.Request, t store.Token) error {
	return a.Resources.Remove(r, t)
}
