package kbs

import (
	"context"
	"crypto/hpke"
	"errors"
	"fmt"
	"net/http"

	"github.com/ccrun/ccrun/secret"
)

// Session is a guest's session that the server has granted. It ends with
// Close, and on the server's side soon after it was granted.
type Session struct {
	x      *exchange
	teeKey hpke.PrivateKey
	rd     ReportData
	req    ReleaseRequest
}

// Attest attests and returns the session, for a guest that wants more than its
// DiskKey. Servers are tried as Release tries them.
func (c *Client) Attest(ctx context.Context, req ReleaseRequest) (s *Session, err error) {
	err = c.each(ctx, req, "a session", func(base string, pins Pins) error {
		s, err = c.try(ctx, base, pins, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Client) try(ctx context.Context, base string, pins Pins, req ReleaseRequest) (_ *Session, err error) {
	x, err := c.connect(base, pins)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			x.close()
		}
	}()
	var auth AuthAnswer
	in := AuthRequest{Version: 1, TEE: req.TEE, WorkloadID: req.WorkloadID}
	if err := x.do(ctx, http.MethodPost, "/v1/auth", in, &auth, MaxAnswerBody); err != nil {
		return nil, err
	}
	req.reportTime(auth.ServerTime)
	x.bearer = auth.Session
	k, rd, err := attest(ctx, x, auth.Nonce, req)
	if err != nil {
		return nil, err
	}
	return &Session{x: x, teeKey: k, rd: rd, req: req}, nil
}

// ReportData is what the session's Evidence was for: the server's record of the
// session has it, too.
func (s *Session) ReportData() ReportData { return s.rd }

// Close gives the connection back.
func (s *Session) Close() { s.x.close() }

// DiskKey is the workload's DiskKey, the one that req.Opens accepts if there
// are two.
func (s *Session) DiskKey(ctx context.Context) (secret.Bytes, error) {
	id := s.req.WorkloadID
	k, err := s.DiskKeyOf(ctx, id)
	if err != nil || s.req.Opens == nil || s.req.Opens(k) {
		return k, err
	}
	staged, err := s.fetch(ctx, workloadPath(id)+"/key/staged", StagedName(id))
	var p *ProblemError
	if errors.As(err, &p) && p.Code == CodeNotFound {
		return k, nil // no rotation: the disk is another one, which its caller finds out
	}
	k.Wipe()
	return staged, err
}

// Confirm says that the guest's disk opened with the DiskKey.
func (s *Session) Confirm(ctx context.Context) error {
	var answer ConfirmAnswer
	if err := s.x.do(ctx, http.MethodPost, workloadPath(s.req.WorkloadID)+"/confirm", nil, &answer, MaxAnswerBody); err != nil {
		return err
	}
	if answer.Result != Confirmed {
		return fmt.Errorf("answer to the confirmation is %q, expected %q", answer.Result, Confirmed)
	}
	return nil
}

// DiskKeyOf asks for the DiskKey of workload id. Of any but the session's own a
// server that is not broken refuses it.
func (s *Session) DiskKeyOf(ctx context.Context, id string) (secret.Bytes, error) {
	return s.fetch(ctx, workloadPath(id)+"/key", ReleaseName(id))
}

// fetch gets what is released under name at path.
func (s *Session) fetch(ctx context.Context, path, name string) (secret.Bytes, error) {
	var sealed Sealed
	if err := s.x.do(ctx, http.MethodGet, path, nil, &sealed, MaxAnswerBody); err != nil {
		return secret.Bytes{}, err
	}
	s.req.reportTime(sealed.ServerTime)
	return open(s.teeKey, sealed, ReleaseInfo(s.rd, name))
}
