package kbs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ccrun/ccrun/secret"
)

const (
	maxAdminAnswer = 1 << 20 // a registration and a result with its claims
	listPage       = 100
)

// AdminClient is the owner's side of the native dialect. It needs URL and
// Token. The server is known by PinnedKeys if there are any, else by RootCAs,
// else by the system's roots.
type AdminClient struct {
	URL        string       // https://HOST[:PORT]
	Token      secret.Bytes // sent as bearer
	RootCAs    *x509.CertPool
	PinnedKeys []string
	Timeout    time.Duration // of one HTTP exchange; zero: 30 s
}

// Register registers a workload. created is false if exactly this
// registration and key were there already. A different registration under the
// same id, or another workload with the same launch digest, is a
// *ProblemError of code conflict or duplicate_digest.
func (c *AdminClient) Register(ctx context.Context, req RegisterRequest) (created bool, err error) {
	var s RegisterAnswer
	if err := c.do(ctx, http.MethodPut, workloadPath(req.Registration.WorkloadID), req, &s); err != nil {
		return false, err
	}
	return s.Created, nil
}

// Get is the workload's registration and history, without its key.
func (c *AdminClient) Get(ctx context.Context, id string) (*WorkloadStatus, error) {
	var s WorkloadStatus
	if err := c.do(ctx, http.MethodGet, workloadPath(id), nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// List is every workload, ordered by id.
func (c *AdminClient) List(ctx context.Context) ([]WorkloadSummary, error) {
	var all []WorkloadSummary
	for after := ""; ; {
		var page WorkloadList
		q := url.Values{"limit": {strconv.Itoa(listPage)}}
		if after != "" {
			q.Set("after", after)
		}
		if err := c.do(ctx, http.MethodGet, "/v1/workloads?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Workloads...)
		if page.Next == "" {
			return all, nil
		}
		if page.Next <= after {
			return nil, errors.New("listing workloads: the server's pages do not advance")
		}
		after = page.Next
	}
}

// Revoke makes the server refuse the workload's key from now on. The
// registration stays, for the record. Revoking twice is no error.
func (c *AdminClient) Revoke(ctx context.Context, id string) (*WorkloadStatus, error) {
	var s WorkloadStatus
	if err := c.do(ctx, http.MethodPost, workloadPath(id)+"/revoke", nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Remove deletes the registration and its DiskKey for good.
func (c *AdminClient) Remove(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, workloadPath(id), nil, nil)
}

// Session is why a session was granted or denied. number is the public one.
func (c *AdminClient) Session(ctx context.Context, number string) (*SessionRecord, error) {
	var r SessionRecord
	if err := c.do(ctx, http.MethodGet, "/v1/sessions/"+url.PathEscape(number), nil, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// Sessions is a page of sessions, the latest first: a workload's, or all that
// the token may see if workload is empty. before is the Next of the page before.
func (c *AdminClient) Sessions(ctx context.Context, workload, before string, limit int) (*SessionList, error) {
	q := url.Values{"limit": {strconv.Itoa(min(limit, listPage))}}
	if workload != "" {
		q.Set("workload", workload)
	}
	if before != "" {
		q.Set("before", before)
	}
	var l SessionList
	if err := c.do(ctx, http.MethodGet, "/v1/sessions?"+q.Encode(), nil, &l); err != nil {
		return nil, err
	}
	return &l, nil
}

// SessionEvidence is what a denied guest showed, for whoever owns its workload.
func (c *AdminClient) SessionEvidence(ctx context.Context, number string) (*SessionEvidence, error) {
	var e SessionEvidence
	if err := c.do(ctx, http.MethodGet, "/v1/sessions/"+url.PathEscape(number)+"/evidence", nil, &e); err != nil {
		return nil, err
	}
	return &e, nil
}

// Audit is a page of the audit log: the entries after a sequence number; the
// first page, of 0.
func (c *AdminClient) Audit(ctx context.Context, after int64) (*AuditPage, error) {
	q := url.Values{}
	if after > 0 {
		q.Set("after", strconv.FormatInt(after, 10))
	}
	return c.auditPage(ctx, q)
}

// NextAudit is the page of the audit log after the page before, the operator's or
// a tenant's; the first, if that is nil. ErrLastPage: there is none.
func (c *AdminClient) NextAudit(ctx context.Context, before *AuditPage) (*AuditPage, error) {
	switch {
	case before == nil:
		return c.Audit(ctx, 0)
	case before.Cursor != "":
		return c.auditPage(ctx, url.Values{"cursor": {before.Cursor}})
	case before.Next > 0:
		return c.Audit(ctx, before.Next)
	}
	return nil, ErrLastPage
}

// ErrLastPage reports that a list ends here.
var ErrLastPage = errors.New("no further page")

func (c *AdminClient) auditPage(ctx context.Context, q url.Values) (*AuditPage, error) {
	q.Set("limit", strconv.Itoa(listPage))
	var p AuditPage
	if err := c.do(ctx, http.MethodGet, "/v1/audit?"+q.Encode(), nil, &p); err != nil {
		return nil, err
	}
	if after := q.Get("after") + q.Get("cursor"); after != "" && (p.Cursor == after || strconv.FormatInt(p.Next, 10) == after) {
		return nil, errors.New("reading the audit log: the server's pages do not advance")
	}
	return &p, nil
}

// Checkpoint is the head of the audit log's tree as its witnesses have it: a
// signed note of C2SP tlog-checkpoint, unchecked.
func (c *AdminClient) Checkpoint(ctx context.Context) (note []byte, err error) {
	return note, c.do(ctx, http.MethodGet, "/v1/audit/checkpoint", nil, &note)
}

func workloadPath(id string) string { return "/v1/workloads/" + url.PathEscape(id) }

func (c *AdminClient) do(ctx context.Context, method, path string, in, out any) error {
	return c.doLimit(ctx, method, path, in, out, maxAdminAnswer)
}

// doLimit is do for an answer of at most limit bytes.
func (c *AdminClient) doLimit(ctx context.Context, method, path string, in, out any, limit int64) error {
	if c.URL == "" || c.Token.Len() == 0 {
		return errors.New("no server URL or no token")
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: c.RootCAs}}
	if len(c.PinnedKeys) > 0 {
		pins, err := ParsePins(c.PinnedKeys)
		if err != nil {
			return err
		}
		u, err := url.Parse(c.URL)
		if err != nil {
			return err
		}
		t.TLSClientConfig = pins.tlsConfig(u.Hostname())
	}
	x, err := newExchange(t, c.URL, cmp.Or(max(c.Timeout, 0), 30*time.Second))
	if err != nil {
		return err
	}
	defer x.close()
	x.bearer = string(c.Token.Reveal())
	return unreached(x.do(ctx, method, path, in, out, limit))
}
