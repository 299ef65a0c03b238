package web

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// place is a workload on a machine, as a row of the fleet.
type place struct {
	Host     string // chip or, where Evidence hides it, network address
	Chip     bool   // Host was signed; an address is not
	TEE      kbs.TEE
	Workload string
	Firmware verdict
	Outcome  outcome
	At       time.Time
	Session  string
	Kept     bool // the session's record is there to be linked to
}

// verdict is what is known of a machine's firmware, in the words of
// `attest-server machines`.
type verdict struct {
	Kind  string // as verdicts names it
	Class string
	Text  string
}

// verdicts are what a list can be asked for.
var verdicts = []choice{{"", "any"}, {"denied", "denied machine"}, {"back", "went back"}, {"refused", "refused"}, {"open", "open advisories"}, {"sound", "nothing open"}, {"unknown", "not known"}}

// firmwareRules are what appraises a platform and not what was launched on it;
// besides them there is one rule for each advisory.
var firmwareRules = []string{"silicon", "advisories", "tcb_status", "minimum_tcb", "minimum_tee_tcb", "minimum_tcb_evaluation", "mitigations", "provisional_firmware"}

func placeOf(x store.Sighting) place {
	p := place{Host: x.Machine, Chip: x.Machine != "", Workload: x.Workload, At: x.At, Session: x.Session, Outcome: outcomeOf(kbs.SessionRecord{Granted: true})}
	if x.Known != nil {
		p.TEE = x.Known.TEE
	}
	if x.Record != nil {
		p.Kept, p.TEE, p.Outcome = true, x.Record.Result.TEE, outcomeOf(*x.Record)
		if !p.Chip {
			p.Host = x.Record.Peer
		}
	}
	p.Firmware = judge(x)
	return p
}

// judge is the verdict on the firmware that a sighting was on. What is known of
// the machine since comes first.
func judge(x store.Sighting) verdict {
	switch m := x.Known; {
	case m != nil && m.DeniedAt != nil:
		return verdict{"denied", "fail", "DENIED since " + when(m.DeniedAt)}
	case m != nil && m.WentBack():
		return verdict{"back", "fail", "WENT BACK from " + m.Highest.String()}
	}
	var open, refused []string
	if x.Record != nil {
		open, refused = firmwareOf(*x.Record)
	} else if x.Known != nil {
		open = x.Known.Advisories
	}
	switch {
	case len(refused) > 0:
		return verdict{"refused", "fail", "refused: " + strings.Join(refused, ", ")}
	case len(open) > 0:
		return verdict{"open", "warn", "open: " + strings.Join(open, ", ")}
	case x.Record == nil && x.Known == nil || x.Record != nil && len(x.Record.Result.Claims) == 0:
		return verdict{"unknown", "open", "not known"}
	}
	return verdict{"sound", "pass", "nothing open"}
}

// firmwareOf is what is open on the platform of a session, and what of that was
// refused.
func firmwareOf(r kbs.SessionRecord) (open, refused []string) {
	for _, rule := range r.Result.Rules {
		id, advisory := strings.CutPrefix(rule.Rule, verifier.AdvisoryRule(""))
		if !advisory && !slices.Contains(firmwareRules, rule.Rule) || !advisory && rule.Pass {
			continue
		}
		if rule.Pass {
			open = append(open, id)
		} else {
			refused = append(refused, id)
		}
	}
	var c struct {
		TDX *struct {
			Status string `json:"tcb_status"`
		} `json:"tdx"`
	}
	if json.Unmarshal(r.Result.Claims, &c) == nil && c.TDX != nil && c.TDX.Status != "UpToDate" {
		open = append(open, "TCB "+c.TDX.Status)
	}
	return open, refused
}

func (p place) matches(f filter) bool {
	return f.has(p.Host, p.Workload, p.Firmware.Text, string(p.TEE)) &&
		(f.Firmware == "" || f.Firmware == p.Firmware.Kind) && (f.Outcome == "" || f.Outcome == p.Outcome.Kind)
}

// fleet is where workloads were seen last.
func (p *Page) fleet(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here = "Fleet", "/ui/fleet"
	f := filterOf(r, filter{Path: v.Here, Hint: "chip, address, workload or advisory", Firmwares: verdicts, Outcomes: outcomes})
	read := func(from moment, limit int) ([]place, error) {
		all, err := p.Store.Fleet(r.Context(), store.FleetQuery{Tenant: v.Tenant, Before: from.at, BeforeSession: from.session}, limit)
		return each(all, placeOf), err
	}
	// Where a machine hides which it is, its address stands for it.
	shown := map[[2]string]bool{}
	l, err := listed(r, f, read, func(x place) moment { return moment{x.At, x.Session} }, func(x place) bool {
		again := !x.Chip && shown[[2]string{x.Host, x.Workload}]
		shown[[2]string{x.Host, x.Workload}] = true
		return !again && x.matches(f)
	})
	if err != nil {
		return err
	}
	v.Data = l
	p.show(w, r, http.StatusOK, "fleet", v)
	return nil
}
