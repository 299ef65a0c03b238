package release

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// machineChecks refuse a machine that an incident was declared of, and tell of
// one whose firmware is older than it once was.
func (e *Engine) machineChecks(ctx context.Context, claims *verifier.Claims) (checks Checks, err error) {
	id := machineID(claims)
	if id == "" {
		return nil, nil
	}
	m, err := e.Store.Machine(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	state := "none"
	if m.DeniedAt != nil {
		state = "declared " + m.DeniedAt.Format("2006-01-02T15:04:05Z07:00")
	}
	checks.Add("machine_incident", m.DeniedAt == nil, "no incident of this machine", state, "this machine is compromised: move the workload; `ccrun incident chip --lift ID` accepts it again")
	if claims.SNP == nil || m.Highest == nil {
		return checks, nil
	}
	if now := claims.SNP.ReportedTCB; now.Max(*m.Highest) != now {
		checks.Add("tcb_history", true, fmt.Sprintf("any; %s was seen", *m.Highest), "WARNING: the machine went back to "+now.String(), "")
	}
	return checks, nil
}

// machineID is CHIP_ID or PPID in hex, empty if the Evidence hides it.
func machineID(c *verifier.Claims) string {
	id := ""
	switch {
	case c.SNP != nil:
		id = c.SNP.ChipID.String()
	case c.TDX != nil:
		id = c.TDX.PPID
	}
	if strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}
