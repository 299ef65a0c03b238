// Package cdh is what a workload built with --cdh asks in its guest: CoCo's
// "confidential data hub" and "attestation agent", as their api-server-rest has
// them on 127.0.0.1:8006, so that an image written for CoCo runs unchanged. It
// holds the right to ask and nothing else: no key of a disk goes through it.
//
// Whoever can connect is the workload, or somebody whom the workload lets make
// requests: both are hostile here. Names and sizes are bounded before anything is
// asked, and what is asked is counted.
package cdh

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

const (
	// Port is CoCo's.
	Port = 8006
	// MaxRuntimeData bounds what Evidence is asked for, decoded.
	MaxRuntimeData = 4 << 10
	// maxHead bounds a request's line and header: net/http adds 4 KiB.
	maxHead = 12 << 10
	// askTimeout bounds what is asked of others for one request.
	askTimeout = 30 * time.Second
)

// A Source is whom the service asks. Errors that are a *kbs.ProblemError get that
// problem's status, others are trouble.
type Source interface {
	// Resource is a resource's newest value, if it is the workload's to have.
	Resource(ctx context.Context, id kbs.ResourceID) (secret.Bytes, error)
	// Token is what the key server says of this guest, signed.
	Token(ctx context.Context) (string, error)
	// Evidence is for the report data of kbs.GuestBinding over data.
	Evidence(ctx context.Context, data []byte) (kbs.Evidence, error)
}

// Service answers a workload. Its zero value refuses: it needs a Source.
type Service struct {
	Source Source
	// Clock is the time for counting; nil: the machine's.
	Clock func() time.Time

	budget budget
}

// Handler is the service behind one listener. local says that the listener is no
// TCP socket, to which no name leads.
func (s *Service) Handler(local bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := s.serve(w, r, local); err != nil {
			writeRefusal(w, err)
		}
	})
}

// Server serves such a handler with bounds of time and size.
func (s *Service) Server(local bool) *http.Server {
	return &http.Server{
		Handler: s.Handler(local), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: askTimeout + 10*time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: maxHead - 4<<10,
	}
}

func (s *Service) serve(w http.ResponseWriter, r *http.Request, local bool) error {
	if err := checkRequest(r, local); err != nil {
		return err
	}
	ask, err := s.route(r)
	if err != nil {
		return err
	}
	if s.Source == nil {
		return refuse(http.StatusServiceUnavailable, "nobody to ask")
	}
	done, err := s.budget.take(s.now())
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	return ask(ctx, w)
}

func (s *Service) now() time.Time {
	if s.Clock != nil {
		return s.Clock()
	}
	return time.Now()
}

// checkRequest refuses what no program of the workload asks by itself: what a
// browser or a proxy passed on, and a name that somebody else's DNS says is this
// guest's.
func checkRequest(r *http.Request, local bool) error {
	for _, name := range []string{"Origin", "Forwarded", "X-Forwarded-For", "Sec-Fetch-Site"} {
		if r.Header.Get(name) != "" {
			return refuse(http.StatusForbidden, "asked on behalf of another: the request has a header %s", name)
		}
	}
	if !local && !slices.Contains(hosts(), strings.ToLower(r.Host)) {
		return refuse(http.StatusForbidden, "host %.80q, expected 127.0.0.1:%d", r.Host, Port)
	}
	switch {
	case r.Method != http.MethodGet:
		return refuse(http.StatusMethodNotAllowed, "method %.20q, expected GET", r.Method)
	case r.ContentLength != 0:
		return refuse(http.StatusRequestEntityTooLarge, "a body, expected none")
	}
	return nil
}

// hosts are the names of the listener.
func hosts() (names []string) {
	for _, h := range []string{"127.0.0.1", "localhost", "::1"} {
		names = append(names, net.JoinHostPort(h, fmt.Sprint(Port)))
	}
	return append(names, "127.0.0.1", "localhost", "[::1]")
}

// An asking answers a request that was understood.
type asking func(ctx context.Context, w http.ResponseWriter) error

// route reads what is asked for, strictly: an escaped path names nothing.
func (s *Service) route(r *http.Request) (asking, error) {
	path := r.URL.EscapedPath()
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the query cannot be read")
	}
	name, ok := strings.CutPrefix(path, "/cdh/resource/")
	switch {
	case ok:
		id, err := kbs.ParseResourceID(name)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "expected /cdh/resource/REPO/TYPE/TAG, each up to 64 letters, digits, '.', '_' and '-', not beginning with '.'")
		}
		return s.resource(id), nil
	case path == "/aa/token":
		if kind := query.Get("token_type"); kind != "kbs" {
			return nil, refuse(http.StatusBadRequest, "token_type %.40q, expected kbs", kind)
		}
		return s.token, nil
	case path == "/aa/evidence":
		data, err := runtimeData(query)
		if err != nil {
			return nil, err
		}
		return s.evidence(data), nil
	}
	return nil, refuse(http.StatusNotFound, "expected /cdh/resource/REPO/TYPE/TAG, /aa/token or /aa/evidence")
}

// runtimeData is the query's, as it is or decoded.
func runtimeData(query url.Values) ([]byte, error) {
	text, encoding := query.Get("runtime_data"), query.Get("encoding")
	if !query.Has("runtime_data") || len(query["runtime_data"]) != 1 || len(query["encoding"]) > 1 {
		return nil, refuse(http.StatusBadRequest, "expected runtime_data, once")
	}
	data, err := []byte(text), error(nil)
	switch encoding {
	case "":
	case "base64":
		data, err = base64.RawURLEncoding.Strict().DecodeString(text)
	default:
		return nil, refuse(http.StatusBadRequest, "encoding %.40q, expected none or base64", encoding)
	}
	switch {
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "runtime_data is no base64url without padding")
	case len(data) > MaxRuntimeData:
		return nil, refuse(http.StatusRequestEntityTooLarge, "runtime_data of %d bytes, at most %d allowed", len(data), MaxRuntimeData)
	}
	return data, nil
}

func (s *Service) resource(id kbs.ResourceID) asking {
	return func(ctx context.Context, w http.ResponseWriter) error {
		value, err := s.Source.Resource(ctx, id)
		if err != nil {
			return err
		}
		defer value.Wipe()
		return write(w, "application/octet-stream", value.Reveal())
	}
}

func (s *Service) token(ctx context.Context, w http.ResponseWriter) error {
	token, err := s.Source.Token(ctx)
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]string{"token": token})
}

func (s *Service) evidence(data []byte) asking {
	return func(ctx context.Context, w http.ResponseWriter) error {
		e, err := s.Source.Evidence(ctx, data)
		if err != nil {
			return refuse(http.StatusServiceUnavailable, "the TEE gives no evidence now")
		}
		shown, err := cocoEvidence(e)
		if err != nil {
			return err
		}
		return writeJSON(w, shown)
	}
}
