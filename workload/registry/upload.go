package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/ccrun/ccrun/workload/blob"
)

// upload sends a layer to a registry by the OCI distribution specification:
// POST for a session, one PATCH with all bytes as they are made, PUT to close
// it under the digest. If that breaks off, the registry is asked what it has, and
// gets the rest. The first requests are those of containers/image, so that a
// registry that takes its pushes takes ours. A registry that cannot say what it
// has (docker's distribution gives a session up that was cut) gets the layer from
// its start.
//
// Every attempt runs write from its start, which must write the same bytes each
// time. If it does not, or if the registry has lied about what it has, then the
// registry refuses the digest, and nothing is resumed any more.
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
	distrust bool          // a resumed session was refused in the end
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

func (e *busyError) Unwrap() error { return e.error }

func (e *startAnewError) Unwrap() error { return e.error }
