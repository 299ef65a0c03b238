package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/sirupsen/logrus"

	"github.com/ccrun/ccrun/workload/blob"
)

func (u *upload) connect(ctx context.Context) error {
	if u.http != nil {
		return nil
	}
	rt, err := transport.NewWithContext(ctx, u.client.Repository.Registry, u.client.Auth, u.client.Transport, []string{u.client.Repository.Scope(transport.PushScope)})
	if err != nil {
		return WithHint(fmt.Errorf("contacting registry %s: %w", u.client.Repository.RegistryStr(), err), "")
	}
	u.http = &http.Client{Transport: rt}
	return nil
}

// exists says whether an attempt whose end was not seen has come to its end.
func (u *upload) exists(ctx context.Context) (bool, error) {
	if u.digest == "" {
		return false, nil
	}
	resp, err := u.ask(ctx, http.MethodHead, u.url("blobs/"+u.digest.String()), http.StatusOK, http.StatusNotFound)
	return err == nil && resp.StatusCode == http.StatusOK && resp.ContentLength == u.size, err
}

// locate finds out where the session stands, or begins one.
func (u *upload) locate(ctx context.Context) error {
	if u.session != nil {
		err := u.status(ctx)
		if err == nil || isBusy(err) {
			return err
		}
		logrus.Debugf("Not resuming the push of a layer: %v", err)
	}
	u.session, u.offset = nil, 0
	u.sent.Store(0)
	resp, err := u.ask(ctx, http.MethodPost, u.url("blobs/uploads/"), http.StatusAccepted)
	if err != nil {
		return fmt.Errorf("beginning upload: %w", err)
	}
	u.fresh = true
	return u.follow(resp)
}

// status asks how much of the layer the registry has. What cannot be true, or
// is less than it had, is no ground to continue on.
func (u *upload) status(ctx context.Context) error {
	if u.distrust {
		return &startAnewError{errors.New("resuming has failed before")}
	}
	resp, err := u.ask(ctx, http.MethodGet, u.session, http.StatusNoContent, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return fmt.Errorf("asking for the state of the upload: %w", err)
	}
	got := resp.Header.Get("Range")
	have, ok := parseUploadRange(got)
	if sent := u.sent.Load(); !ok || have > sent || have < u.offset || have == u.size && u.digest == "" {
		return &startAnewError{fmt.Errorf("the registry has Range %q, expected from %d to %d bytes", got, u.offset, sent)}
	}
	if have-u.best >= progressBytes {
		u.best, u.failures = have, 0
	}
	u.offset = have
	u.sent.Store(have)
	return u.follow(resp)
}

// commit closes the session. The registry compares the digest.
func (u *upload) commit(ctx context.Context) error {
	to := *u.session
	q := to.Query()
	q.Set("digest", u.digest.String())
	to.RawQuery = q.Encode()
	resp, err := u.ask(ctx, http.MethodPut, &to, http.StatusCreated, http.StatusNoContent)
	if err != nil {
		return fmt.Errorf("completing layer %s: %w", u.digest, err)
	}
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != u.digest.String() {
		return fmt.Errorf("%w: the registry says it has %q, sent was %s", blob.ErrDigest, got, u.digest)
	}
	return nil
}

func (u *upload) url(path string) *url.URL {
	r := u.client.Repository
	return &url.URL{Scheme: r.Scheme(), Host: r.RegistryStr(), Path: "/v2/" + r.RepositoryStr() + "/" + path}
}

// follow takes the session's new address; it may change with every answer.
func (u *upload) follow(resp *http.Response) error {
	to, err := resp.Location()
	switch {
	case err == http.ErrNoLocation && u.session != nil:
		return nil
	case err != nil:
		return fmt.Errorf("reading address of the upload: %w", err)
	}
	u.session = to
	return nil
}

func (u *upload) ask(ctx context.Context, method string, to *url.URL, want ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	if method == http.MethodPut {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	return u.do(req, want...)
}

// do returns an answer without its body.
func (u *upload) do(req *http.Request, want ...int) (*http.Response, error) {
	resp, err := u.http.Do(req)
	if err != nil {
		var full *url.Error
		if errors.As(err, &full) { // a session's query may be all that it takes to write to it
			return nil, fmt.Errorf("%s %s%s: %w", req.Method, req.URL.Host, req.URL.Path, full.Err)
		}
		return nil, err
	}
	defer resp.Body.Close()
	resp.Body = io.NopCloser(io.LimitReader(resp.Body, 64<<10)) // of an error's text
	if err := transport.CheckError(resp, want...); err != nil {
		return nil, &busyError{fmt.Errorf("status %d: %w", resp.StatusCode, err), retryAfter(resp.Header.Get("Retry-After"))}
	}
	return resp, nil
}
