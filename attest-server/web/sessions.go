package web

import (
	"net/http"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// outcome is what became of a session, in the words of `ccrun session ls`.
type outcome struct {
	Kind        string // as outcomes names it
	Class, Text string
	Failed      []string // rules
}

// outcomes are what a list can be asked for.
var outcomes = []choice{{"", "any"}, {"granted", "granted"}, {"denied", "denied"}, {"undecided", "not decided"}}

func outcomeOf(r kbs.SessionRecord) outcome {
	var failed []string
	for _, rule := range r.Result.Rules {
		if !rule.Pass && rule.Rule != "appraisal" { // which sums up others
			failed = append(failed, rule.Rule)
		}
	}
	switch {
	case r.Granted:
		return outcome{"granted", "pass", "granted", failed}
	case r.Result.Result == kbs.Undecided:
		return outcome{"undecided", "warn", "not decided", failed}
	}
	return outcome{"denied", "fail", "denied", failed}
}

// state is what a registration is worth, in the words of `ccrun workload ls`.
type state struct{ Class, Text string }

func (p *Page) stateOf(revoked, ends *time.Time) state {
	switch {
	case revoked != nil:
		return state{"fail", "revoked"}
	case ends != nil && !p.Clock().Before(*ends):
		return state{"fail", "ended"}
	case ends != nil:
		return state{"warn", "until " + when(ends)}
	}
	return state{"pass", "active"}
}

// line is a session as a row of a list.
type line struct {
	kbs.SessionRecord
	Outcome outcome
}

func lineOf(r kbs.SessionRecord) line { return line{r, outcomeOf(r)} }

func (x line) matches(f filter) bool {
	return f.has(x.Session, x.WorkloadID, x.Peer, string(x.Result.TEE), strings.Join(x.Outcome.Failed, " ")) && (f.Outcome == "" || f.Outcome == x.Outcome.Kind)
}

func (p *Page) sessions(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here = "Sessions", "/ui/sessions"
	f := filterOf(r, filter{Path: v.Here, Hint: "session, workload, address or rule", Outcomes: outcomes})
	read := func(from moment, limit int) ([]line, error) {
		q := store.SessionQuery{Tenant: v.Tenant, WorkloadID: f.Workload, Before: from.at, BeforeNumber: from.session}
		all, err := p.Store.Sessions(r.Context(), q, limit)
		return each(all, lineOf), err
	}
	l, err := listed(r, f, read, func(x line) moment { return moment{x.At, x.Session} }, func(x line) bool { return x.matches(f) })
	if err != nil {
		return err
	}
	v.Data = l
	p.show(w, r, http.StatusOK, "sessions", v)
	return nil
}
