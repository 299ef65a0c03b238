package registry

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/blob"
)

// PutManifest stores a manifest under its digest or a tag. listed says whether
// the registry has listed it with the referrers of its subject.
func (c *Client) PutManifest(ctx context.Context, reference, mediaType string, manifest []byte) (listed bool, err error) {
	err = PatienceOf(ctx).Push(ctx, func(ctx context.Context) error {
		u := &upload{client: c}
		if err := u.connect(ctx); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.url("manifests/"+reference).String(), bytes.NewReader(manifest))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := u.do(req, http.StatusOK, http.StatusCreated, http.StatusAccepted)
		if err != nil {
			return fmt.Errorf("writing manifest %s: %w", reference, err)
		}
		listed = resp.Header.Get("OCI-Subject") != ""
		if got, sent := resp.Header.Get("Docker-Content-Digest"), digest.FromBytes(manifest).String(); got != "" && got != sent {
			return fmt.Errorf("writing manifest %s: %w: the registry says it has %q, sent was %s", reference, blob.ErrDigest, got, sent)
		}
		return nil
	})
	return listed, err
}

// TagNow is the digest of what the registry answers under a tag.
func (c *Client) TagNow(ctx context.Context, tag string) (digest.Digest, error) {
	got, err := remote.Get(c.Repository.Tag(tag), remote.WithContext(ctx), remote.WithTransport(c.Transport), remote.WithAuth(c.Auth))
	if err != nil {
		return "", err
	}
	return digest.FromBytes(got.Manifest), nil
}

// ListsReferrers says whether the registry has the referrers API.
func (c *Client) ListsReferrers(ctx context.Context, subject digest.Digest) (has bool, err error) {
	err = PatienceOf(ctx).Do(ctx, func(ctx context.Context) error {
		u := &upload{client: c}
		if err := u.connect(ctx); err != nil {
			return err
		}
		resp, err := u.ask(ctx, http.MethodGet, u.url("referrers/"+subject.String()),
			http.StatusOK, http.StatusNotFound, http.StatusBadRequest, http.StatusNotAcceptable, http.StatusMethodNotAllowed)
		if err == nil {
			has = resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Type") == imgspec.MediaTypeImageIndex
		}
		return err
	})
	return has, err
}
