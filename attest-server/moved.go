package attestserver

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
)

// MovedConfig is what a Moved is made of. All but Limits is needed.
type MovedConfig struct {
	To     kbs.Move
	Clock  func() time.Time
	Log    *slog.Logger
	Limits answer.RateLimits
}

// Moved stands at a server's old address and says where it is now. It has
// neither store nor MasterKey, so whoever takes it over gets nobody's key. It
// is safe for concurrent use.
type Moved struct {
	to     kbs.Move
	log    *slog.Logger
	clock  func() time.Time
	limits *answer.Limiter
	mux    *http.ServeMux
}

// movedRetry is how long a guest that cannot follow leaves this address alone.
const movedRetry = time.Minute

// NewMoved checks c and makes a Moved.
func NewMoved(c MovedConfig) (*Moved, error) {
	if c.Clock == nil || c.Log == nil {
		return nil, errors.New("a server that has moved without clock or log")
	}
	if err := c.To.Check(); err != nil {
		return nil, err
	}
	answers := answer.Responder{Log: c.Log}
	m := &Moved{to: c.To, log: c.Log, clock: c.Clock, limits: answer.NewLimiter(c.Limits, c.Clock, answers, func(string) {}), mux: http.NewServeMux()}
	gone := func(http.ResponseWriter, *http.Request) error {
		return &refusal.Error{Code: kbs.CodeMoved, Detail: "this server has moved to " + strings.Join(c.To.URLs, ", "), RetryAfter: movedRetry}
	}
	m.mux.HandleFunc("POST /v1/moved", answers.Handle(m.whereTo))
	for _, path := range []string{"GET /healthz", "GET /readyz"} {
		m.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "moved\n") })
	}
	m.mux.HandleFunc(answer.ForeignPrefix, answers.Respond(answer.ErrorInformation, gone))
	m.mux.HandleFunc("/", answers.Handle(gone))
	return m, nil
}

// whereTo answers the question of a guest that was told CodeMoved.
func (m *Moved) whereTo(w http.ResponseWriter, r *http.Request) error {
	var q kbs.MovedRequest
	if err := answer.ReadJSON(w, r, kbs.MaxAuthBody, &q); err != nil {
		return err
	}
	switch {
	case q.Version != 1:
		return refusal.New(kbs.CodeBadRequest, "protocol version %d, expected 1", q.Version)
	case !kbs.ValidWorkloadID(q.WorkloadID):
		return refusal.New(kbs.CodeBadRequest, "workload_id: expected up to 128 letters, digits, '.', '_', '-'")
	case len(q.Challenge) != kbs.NonceSize:
		return refusal.New(kbs.CodeBadRequest, "challenge of %d bytes, expected %d", len(q.Challenge), kbs.NonceSize)
	}
	m.log.Info("told a guest where this server is now", "workload", q.WorkloadID, "peer", answer.Peer(r))
	return answer.WriteJSON(w, http.StatusOK, kbs.MovedAnswer{WorkloadID: q.WorkloadID, Challenge: q.Challenge, To: m.to})
}

// HTTPServer is the server, as Server.HTTPServer.
func (m *Moved) HTTPServer() *http.Server {
	return httpServer(m.limits.Limit(answer.NoRedirects(m.mux, answer.ErrorInformation)), m.limits, newErrorLog(m.log, m.clock))
}

// Listener is l without the connections of addresses that flood the server.
func (m *Moved) Listener(l net.Listener) net.Listener { return m.limits.Listener(l) }
