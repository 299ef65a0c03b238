package admin

import (
	"crypto/ecdsa"
	"io"
	"mime"
	"net/http"
	"runtime/debug"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// earDeveloper is who made the verifier, in EARs.
const earDeveloper = "https://github.com/ccrun/ccrun"

// JWKS answers with the public half of the key that signs EARs. Anybody may have
// it: whoever checks an EAR needs it.
func (s *Records) JWKS(w http.ResponseWriter, _ *http.Request) error {
	var public []*ecdsa.PublicKey
	if s.SigningKey != nil {
		public = append(public, &s.SigningKey.PublicKey)
	}
	set, err := verifier.NewJWKSet(public...)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	return answer.WriteJSON(w, http.StatusOK, set)
}

// wantsEAR says whether the request asks for a session's result as EAR.
func wantsEAR(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept") {
		if t, _, err := mime.ParseMediaType(v); err == nil && t == "application/eat-jwt" {
			return true
		}
	}
	return false
}

// Token answers with the result of a session as EAR, for whom to say whether it may
// be had has been.
func (s *Records) Token(w http.ResponseWriter, r *http.Request, number string) error {
	rec, err := s.Store.Session(r.Context(), number)
	if err != nil {
		return workloadProblem(err)
	}
	return s.writeEAR(w, rec)
}

// writeEAR answers with a session's result as a signed EAR. Its time is the
// appraisal's, not that of the request: an old result stays old.
func (s *Records) writeEAR(w http.ResponseWriter, rec kbs.SessionRecord) error {
	if s.SigningKey == nil {
		return refusal.New(kbs.CodeNotFound, "this server has no key to sign results with")
	}
	result := rec.Result
	if result.Result == kbs.Undecided {
		return refusal.New(kbs.CodeNotFound, "nothing was decided about this session: the server lacked what it needs to appraise, or the guest has its disk open already")
	}
	if !rec.Granted { // e.g. for too many sessions: no rule failed
		result.Result = kbs.Contraindicated
	}
	ear, err := verifier.NewEAR(result, verifier.VerifierID{Developer: earDeveloper, Build: earBuild()}, "ccrun:workload:"+rec.WorkloadID, rec.At)
	if err != nil {
		return err
	}
	token, err := ear.JWT(s.SigningKey)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", verifier.EARMediaType)
	_, _ = io.WriteString(w, token) // the peer may be gone
	return nil
}

// earBuild names this program by its module version and commit.
func earBuild() string {
	build := "attest-server"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build
	}
	build += " " + info.Main.Version
	for _, v := range info.Settings {
		if v.Key == "vcs.revision" {
			build += " " + v.Value
		}
	}
	return build
}
