package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// UpdateStore is what updates need of a store. Errors are those of package
// store: ErrNotFound, ErrRevoked, ErrChanged, *DuplicateIdentityError,
// *QuotaError.
type UpdateStore interface {
	Workload(ctx context.Context, id string) (store.Workload, error)
	Versions(ctx context.Context, id string) ([]kbs.Version, error)
	Bootable(ctx context.Context, id string) (kbs.Bootable, error)
	Boots(ctx context.Context, tenant, after string, limit int) (kbs.BootList, error)
	PutAgent(ctx context.Context, tenant string, segment []byte) error
	Agent(ctx context.Context, tenant string, digest kbs.Digest) ([]byte, error)
	Amend(ctx context.Context, list []store.Amendment, actor string) ([]error, error)
}

// Updates add what other firmware measures to registrations. All fields are
// needed.
type Updates struct {
	Store    UpdateStore
	Policies *release.Policies
	Clock    func() time.Time
	Log      *slog.Logger
}

func (s *Updates) getBoot(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	id := r.PathValue("id")
	b, err := s.Store.Bootable(r.Context(), id)
	if err != nil {
		return workloadProblem(err)
	}
	if id == kbs.WorkloadOf(id) {
		versions, err := s.Store.Versions(r.Context(), id)
		if err != nil {
			return err
		}
		for _, v := range versions {
			if v.Name != id && v.RevokedAt == nil && (v.EndsAt == nil || s.Clock().Before(*v.EndsAt)) {
				b.Others = append(b.Others, v.Name)
			}
		}
	}
	return answer.WriteJSON(w, http.StatusOK, b)
}

func (s *Updates) listBoots(w http.ResponseWriter, r *http.Request, t store.Token) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	list, err := s.Store.Boots(r.Context(), t.Tenant, r.URL.Query().Get("after"), min(limit, kbs.MaxUpdates))
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}

func agentDigest(r *http.Request) (d kbs.Digest, err error) {
	if err := d.UnmarshalText([]byte(r.PathValue("digest"))); err != nil || d.IsZero() {
		return d, refusal.New(kbs.CodeBadRequest, "agent %.100q, expected a SHA-384 of 96 hex digits", r.PathValue("digest"))
	}
	return d, nil
}

func (s *Updates) putAgent(w http.ResponseWriter, r *http.Request, t store.Token) error {
	d, err := agentDigest(r)
	if err != nil {
		return err
	}
	var a kbs.AgentSegment
	if err := answer.ReadJSON(w, r, kbs.MaxAgentBody, &a); err != nil {
		return err
	}
	if n := len(a.Segment); n == 0 || n > kbs.MaxAgentBytes || kbs.Sum384(a.Segment) != d {
		return refusal.New(kbs.CodeBadRequest, "agent segment of %d bytes, expected 1 to %d with the digest of the path", n, kbs.MaxAgentBytes)
	}
	if err := s.Store.PutAgent(r.Context(), t.Tenant, a.Segment); err != nil {
		return registerProblem(err, t)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Updates) getAgent(w http.ResponseWriter, r *http.Request, t store.Token) error {
	d, err := agentDigest(r)
	if err != nil {
		return err
	}
	segment, err := s.Store.Agent(r.Context(), t.Tenant, d)
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.AgentSegment{Segment: segment})
}

// post updates each workload by itself: a fleet has some that were changed or
// removed meanwhile.
func (s *Updates) post(w http.ResponseWriter, r *http.Request, t store.Token) error {
	var req kbs.UpdateRequest
	if err := answer.ReadJSON(w, r, kbs.MaxUpdateBody, &req); err != nil {
		return err
	}
	if n := len(req.Updates); n == 0 || n > kbs.MaxUpdates {
		return refusal.New(kbs.CodeBadRequest, "%d updates, expected 1 to %d", n, kbs.MaxUpdates)
	}
	a := kbs.UpdateAnswer{Results: make([]kbs.UpdateResult, len(req.Updates))}
	var list []store.Amendment
	var of []int // list's places in a.Results
	seen := map[string]bool{}
	for i, u := range req.Updates {
		if seen[u.WorkloadID] {
			return refusal.New(kbs.CodeBadRequest, "workload %.200q is named twice", u.WorkloadID)
		}
		seen[u.WorkloadID], a.Results[i].WorkloadID = true, u.WorkloadID
		am, err := s.prepare(r.Context(), u, t)
		switch {
		case err != nil:
			if a.Results[i].Problem, err = problem(err, t); err != nil {
				return err
			}
		case am == nil:
			a.Results[i].RegistrationDigest = u.Expect
		default:
			list, of = append(list, *am), append(of, i)
		}
	}
	if err := s.amend(r.Context(), list, of, &a, t); err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, a)
}

func (s *Updates) amend(ctx context.Context, list []store.Amendment, of []int, a *kbs.UpdateAnswer, t store.Token) error {
	if len(list) == 0 {
		return nil
	}
	refused, err := s.Store.Amend(ctx, list, actor(t))
	if err != nil {
		return err
	}
	for k, i := range of {
		to := &a.Results[i]
		if refused[k] != nil {
			if to.Problem, err = problem(refused[k], t); err != nil {
				return err
			}
			continue
		}
		if to.RegistrationDigest, err = digestOf(list[k].To); err != nil {
			return err
		}
		to.Changed = true
		s.Log.Info("workload updated", "workload", to.WorkloadID, "registration", to.RegistrationDigest.String(), "by", actor(t))
	}
	return nil
}

func digestOf(reg kbs.Registration) (kbs.Digest, error) {
	canonical, err := kbs.Canonical(reg)
	return kbs.Sum384(canonical), err
}

// prepare is what an update makes of its workload; nil if that is so already.
func (s *Updates) prepare(ctx context.Context, u kbs.Update, t store.Token) (*store.Amendment, error) {
	if err := ownWorkload(t, u.WorkloadID); err != nil {
		return nil, err
	}
	// Whoever adds a measurement says who gets the key.
	if err := mayDestroy(ctx, s.Store, t, u.WorkloadID); err != nil {
		return nil, err
	}
	have, err := s.Store.Workload(ctx, u.WorkloadID)
	switch {
	case err != nil:
		return nil, err
	case have.Digest != u.Expect:
		return nil, fmt.Errorf("workload %s: %w", u.WorkloadID, store.ErrChanged)
	case have.RevokedAt != nil || have.Ended(s.Clock()):
		return nil, fmt.Errorf("workload %s: %w", u.WorkloadID, store.ErrRevoked)
	case len(u.Add) == 0:
		return nil, refusal.New(kbs.CodeBadRequest, "update of workload %s adds no measurement", u.WorkloadID)
	case have.Registration.Type != kbs.TypeNative:
		return nil, refusal.New(kbs.CodeConflict, "workload %s is registered for the %s dialect, whose guests prove no identity: register it anew", u.WorkloadID, have.Registration.Type)
	}
	after, changed := u.Apply(have.Registration, s.Clock())
	if !changed {
		return nil, nil
	}
	if err := verifier.CheckReferenceValues(after.ReferenceValues); err != nil {
		return nil, refusal.New(kbs.CodeBadRequest, "workload %s after the update: %v", u.WorkloadID, err)
	}
	if err := checkLaunchFields(after); err != nil {
		return nil, refusal.New(kbs.CodeBadRequest, "workload %s after the update: %v", u.WorkloadID, err)
	}
	if err := s.Policies.CheckRegistration(ctx, after); err != nil {
		return nil, err
	}
	return &store.Amendment{Workload: u.WorkloadID, From: u.Expect, To: after, Detail: detail(u)}, nil
}

func detail(u kbs.Update) string {
	var added []string
	for _, m := range u.Add {
		if f := m.Firmware; !slices.Contains(added, f) {
			added = append(added, f)
		}
	}
	text := fmt.Sprintf("%d measurements of firmware %.200s added", len(u.Add), strings.Join(added, ", "))
	if u.OthersNotAfter != nil {
		text += ", all others until " + u.OthersNotAfter.UTC().Format(time.RFC3339)
	}
	return text
}

// problem is err as one workload's; what concerns all of them stays an error.
func problem(err error, t store.Token) (*kbs.Problem, error) {
	switch {
	case errors.Is(err, store.ErrChanged):
		err = &refusal.Error{Code: kbs.CodeConflict, Detail: err.Error() + ": read it again"}
	case errors.Is(err, store.ErrRevoked):
		err = &refusal.Error{Code: kbs.CodeConflict, Detail: err.Error()}
	default:
		err = registerProblem(err, t)
	}
	var r *refusal.Error
	if !errors.As(err, &r) || r.Code == kbs.CodeUnavailable {
		return nil, err
	}
	p := answer.ProblemOf(r)
	return &p, nil
}
