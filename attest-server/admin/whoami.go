package admin

import (
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// whoami tells a caller what he told us: nothing is looked up.
func whoami(w http.ResponseWriter, _ *http.Request, t store.Token) error {
	return answer.WriteJSON(w, http.StatusOK, kbs.Whoami{Role: string(t.Role), Tenant: t.Tenant, Principal: t.Principal, ExpiresAt: t.ExpiresAt})
}
