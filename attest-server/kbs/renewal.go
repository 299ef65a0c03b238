package kbs

import (
	"context"
	"crypto/hpke"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/secret"
)

// MaxRenewBody bounds a RenewRequest.
const MaxRenewBody = 16 << 10

// RenewalAnswer is what a guest gets secrets with after its session, whose
// Evidence binds a RenewalKey: POST /v1/workloads/{id}/renewal. The ticket is of
// no use without that key.
type RenewalAnswer struct {
	Ticket string `json:"ticket"`
}

// RenewRequest asks for a bearer: POST /v1/renew. The answer is one for a minute,
// sealed to the ticket's RenewalKey under RenewalName. With it the guest gets the
// workload's secrets and configuration, and no DiskKey.
type RenewRequest struct {
	Ticket string `json:"ticket"`
}

// RenewalName is the name under which such a bearer is sealed: see ReleaseInfo.
func RenewalName(workloadID string) string { return "workload/" + workloadID + "/renewal" }

// Renewal is a guest's right to secrets after its session.
type Renewal struct {
	Ticket     string
	ReportData ReportData
	Key        []byte // RenewalKey, private
}

// NewRenewalKey makes the key pair: the private half for a Renewal, the public
// one for a ReleaseRequest.
func NewRenewalKey() (private []byte, public *TEEKey, err error) {
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, nil, fmt.Errorf("making the renewal key: %w", err)
	}
	if private, err = k.Bytes(); err != nil {
		return nil, nil, err
	}
	return private, &TEEKey{KEM: k.KEM().ID(), Public: k.PublicKey().Bytes()}, nil
}

// Renewal gets the ticket. key is the RenewalKey of the session's request.
func (s *Session) Renewal(ctx context.Context, key []byte) (*Renewal, error) {
	var a RenewalAnswer
	if err := s.x.do(ctx, http.MethodPost, workloadPath(s.req.WorkloadID)+"/renewal", nil, &a, MaxAnswerBody); err != nil {
		return nil, err
	}
	if a.Ticket == "" {
		return nil, errors.New("the server gives no ticket for renewals")
	}
	return &Renewal{Ticket: a.Ticket, ReportData: s.rd, Key: key}, nil
}

// Renewer gets a running guest's secrets anew.
type Renewer struct {
	Client   *Client
	Workload string
	Renewal  *Renewal
	// OnMoved, if set, is ReleaseRequest's.
	OnMoved func(from, to string)
}

// Secrets are the newest versions of names. Each server is asked once.
func (r *Renewer) Secrets(ctx context.Context, names []string) (all Secrets, err error) {
	err = r.ask(ctx, "", func(x *exchange, key hpke.PrivateKey) error {
		plain, err := r.post(ctx, x, key, secretsPath(r.Workload), SecretsRequest{names}, SecretsName(r.Workload))
		if err != nil {
			return err
		}
		defer plain.Wipe()
		all, err = decodeSecrets(plain, names)
		return err
	})
	return all, err
}

// Token is what the server says of this guest's Evidence, as a signed EAR: for
// whoever trusts the server (GET /v1/jwks).
func (r *Renewer) Token(ctx context.Context) (string, error) {
	var token []byte
	err := r.ask(ctx, "a token", func(x *exchange, _ hpke.PrivateKey) error {
		return x.do(ctx, http.MethodGet, workloadPath(r.Workload)+"/token", nil, &token, MaxAnswerBody)
	})
	return string(token), err
}

// ask calls what asks one server after the other, with a bearer. One that has moved
// is followed, once, as a session follows it: it has the ticket's secret with its store.
func (r *Renewer) ask(ctx context.Context, what string, do func(*exchange, hpke.PrivateKey) error) error {
	pins, err := ParsePins(r.Client.PinnedKeys)
	if err != nil {
		return err
	}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(r.Renewal.Key)
	if err != nil {
		return fmt.Errorf("reading the renewal key: %w", err)
	}
	q := inquiry{what: what, final: isFinal, retry: func(error, time.Duration) {}}
	return q.ask(ctx, r.Client.URLs, func(base string) error {
		return r.Client.tryAt(ctx, base, pins, ReleaseRequest{WorkloadID: r.Workload, OnMoved: r.OnMoved}, func(base string, pins Pins) error {
			x, err := r.Client.connect(base, pins)
			if err != nil {
				return err
			}
			defer x.close()
			if err := r.bear(ctx, x, key); err != nil {
				return err
			}
			return do(x, key)
		})
	})
}

// bear has x show a bearer from now on.
func (r *Renewer) bear(ctx context.Context, x *exchange, key hpke.PrivateKey) error {
	plain, err := r.post(ctx, x, key, "/v1/renew", RenewRequest{r.Renewal.Ticket}, RenewalName(r.Workload))
	if err != nil {
		return err
	}
	x.bearer = string(plain.Reveal())
	plain.Wipe()
	return nil
}

func (r *Renewer) post(ctx context.Context, x *exchange, key hpke.PrivateKey, path string, in any, name string) (secret.Bytes, error) {
	var sealed Sealed
	if err := x.do(ctx, http.MethodPost, path, in, &sealed, MaxSecretsAnswer); err != nil {
		return secret.Bytes{}, err
	}
	return openUpTo(key, sealed, ReleaseInfo(r.Renewal.ReportData, name), MaxSecretsAnswer)
}
