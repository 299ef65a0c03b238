package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/ccrun/ccrun/workload/blob"
)

// upload sends a layer to a registry by the OCI distribution specification:
// POST for a session, one PATCH with all bytes as they are made, PUT to close
// it under the digest. When that breaks off, the registry is asked what it has,
// and gets the rest. The first requests are those of containers/image, so that
// what takes its pushes takes ours. Registries that cannot tell (docker's
// distribution gives a session up that was cut) get the layer from its start.
//
// Every attempt runs write from its start, which must write the same bytes
// each time. Were they not the same, or did the registry lie about what it
// has, it would refuse the digest; then nothing is resumed any more.
type upload struct {
	client   *Client
	patience Patience
	size     int64
	write    blob.WriteFunc

	http     *http.Client  // nil until authenticated
	session  *url.URL      // nil: none that could be continued
	fresh    bool          // session has just begun
	offset   int64         // bytes the registry has, as far as known
	sent     atomic.Int64  // bytes given to the session
	digest   digest.Digest // of the whole layer, once it has been made
	best     int64         // highest offset that counted as progress
	failures int           // attempts without progress
	distrust bool          // the session was resumed, and came to nothing
}

// maxRetryAfter bounds how long a registry may ask to be left alone.
const maxRetryAfter = time.Minute

// Upload sends what write writes, size bytes, as often as it takes.
func (c *Client) Upload(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	u := &upload{client: c, patience: PatienceOf(ctx), size: size, write: write}
	return u.run(ctx)
}

func (u *upload) run(ctx context.Context) (blob.Info, error) {
	for {
		err := u.attempt(ctx)
		switch {
		case err == nil:
			return blob.Info{Digest: u.digest, Size: u.size}, nil
		case ctx.Err() != nil:
			return blob.Info{}, context.Cause(ctx)
		case !isTransient(err):
			return blob.Info{}, err
		}
		if u.failures++; u.failures > u.patience.Retries {
			return blob.Info{}, u.patience.pushFailed(err)
		}
		logrus.Warnf("Pushing a layer failed with %d bytes sent, trying again (%d/%d): %v", u.sent.Load(), u.failures, u.patience.Retries, err)
		select {
		case <-time.After(u.pause(err)):
		case <-ctx.Done():
			return blob.Info{}, context.Cause(ctx)
		}
	}
}

// pause is as long as the registry asks for, and at least our own delay.
func (u *upload) pause(err error) time.Duration {
	d := u.patience.Delay
	if d == 0 {
		d = time.Second << min(u.failures-1, 6)
	}
	var busy *busyError
	if errors.As(err, &busy) {
		d = max(d, min(busy.after, maxRetryAfter))
	}
	return d
}

func (u *upload) attempt(ctx context.Context) error {
	if err := u.connect(ctx); err != nil {
		return err
	}
	if there, err := u.exists(ctx); err != nil || there {
		return err
	}
	if err := u.locate(ctx); err != nil {
		return err
	}
	resumed := !u.fresh
	u.fresh = false
	err := u.finish(ctx)
	if resumed && isRefusal(err) {
		u.session, u.distrust = nil, true
		return &startAnewError{err}
	}
	return err
}

// finish sends what is missing, and closes the session.
func (u *upload) finish(ctx context.Context) error {
	if u.offset < u.size || u.digest == "" {
		if err := u.send(ctx); err != nil {
			return err
		}
	}
	return u.commit(ctx)
}

func (u *upload) connect(ctx context.Context) error {
	if u.http != nil {
		return nil
	}
	rt, err := transport.NewWithContext(ctx, u.client.Repository.Registry, u.client.Auth, u.client.Transport, []string{u.client.Repository.Scope(transport.PushScope)})
	if err != nil {
		return fmt.Errorf("contacting registry %s: %w", u.client.Repository.RegistryStr(), err)
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

// send makes the layer and sends what follows on offset.
func (u *upload) send(ctx context.Context) error {
	watched, guard := watchPush(context.WithValue(ctx, unhurried{}, true), u.patience.Stall)
	defer guard.stop()
	sum, skip := sha256.New(), u.offset
	_, err := blob.Pipe(ctx, func(inner context.Context, w io.Writer) error {
		out := &tailWriter{w: &watchedWriter{w: w, guard: guard}, sum: sum, skip: skip}
		switch err := u.write(inner, out); {
		case err != nil && out.w.err == nil && inner.Err() == nil:
			return &lastingError{err}
		case err != nil:
			return err
		case out.n != u.size:
			return &lastingError{fmt.Errorf("layer has %d bytes, expected %d", out.n, u.size)}
		}
		u.digest = digest.NewDigest(digest.SHA256, sum)
		return nil
	}, func(r io.Reader) (blob.Info, error) { return blob.Info{}, u.patch(watched, r) })
	return guard.attribute(err)
}

// patch sends r, waiting for its first byte before it occupies a connection:
// the bytes before may take long to make.
func (u *upload) patch(ctx context.Context, r io.Reader) error {
	var first [1]byte
	n, err := io.ReadFull(r, first[:])
	if err != nil {
		return err
	}
	body := &sentBody{r: io.MultiReader(strings.NewReader(string(first[:n])), r), sent: &u.sent}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, u.session.String(), body)
	if err != nil {
		return err
	}
	req.ContentLength = u.size - u.offset
	req.Header.Set("Content-Type", "application/octet-stream")
	if u.offset > 0 {
		req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.size-1))
	}
	resp, err := u.do(req, http.StatusAccepted, http.StatusNoContent, http.StatusCreated, http.StatusOK)
	if err != nil {
		return fmt.Errorf("sending layer: %w", err)
	}
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

func (e *busyError) Unwrap() error { return e.error }

func (e *startAnewError) Unwrap() error { return e.error }

// tailWriter hashes all and passes on what follows the first skip bytes.
type tailWriter struct {
	w    *watchedWriter
	sum  hash.Hash
	skip int64 // still to be
	n    int64
}

func (t *tailWriter) Write(p []byte) (int, error) {
	t.sum.Write(p)
	t.n += int64(len(p))
	cut := min(t.skip, int64(len(p)))
	t.skip -= cut
	if int(cut) == len(p) {
		return len(p), nil
	}
	n, err := t.w.Write(p[cut:])
	return int(cut) + n, err
}

// sentBody is a request's body, for one use: the transport may want to send it
// again, with other credentials.
type sentBody struct {
	r      io.Reader
	sent   *atomic.Int64
	closed atomic.Bool
}

func (b *sentBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, fmt.Errorf("credentials have run out: %w", io.ErrUnexpectedEOF)
	}
	n, err := b.r.Read(p)
	b.sent.Add(int64(n))
	return n, err
}

// Close implements io.Closer.
func (b *sentBody) Close() error {
	b.closed.Store(true)
	return nil
}

func (w *watchedWriter) Write(p []byte) (n int, err error) {
	n, w.err = w.guard.write(w.w, p)
	return n, w.err
}
