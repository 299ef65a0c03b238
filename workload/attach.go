package workload

import (
	"context"
	"errors"
	"time"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/workload/referrers"
)

// attach stores documents about the image with manifest mf, where that can be
// done; must says that it has to be.
func attach(ctx context.Context, sys *types.SystemContext, destination string, mf []byte, created time.Time, docs []referrers.Document, must bool) error {
	store, err := referrers.Open(sys, destination)
	if err != nil {
		return err
	}
	if store == nil {
		if must {
			return errors.New("the destination cannot hold referrers")
		}
		return nil
	}
	subject := imgspec.Descriptor{MediaType: manifest.GuessMIMEType(mf), Digest: digest.FromBytes(mf), Size: int64(len(mf))}
	for _, d := range docs {
		if err := referrers.Attach(ctx, store, subject, created, d); err != nil {
			return err
		}
	}
	return nil
}

// recordDocument is the record as all may read it: without the DiskKey, and
// without the source's digest unless that is public.
func (s *sealed) recordDocument(withSource bool) (referrers.Document, error) {
	r := kbs.Record{Version: 1, Registration: s.reg, Identity: s.identity}
	if withSource {
		r.Source = s.source
	}
	j, err := kbs.Canonical(r)
	return referrers.Document{Type: referrers.TypeRecord, MediaType: referrers.TypeRecord, Content: j}, err
}

// signedDocument is a document in an envelope, if there is a key to sign it.
func signedDocument(kind string, content []byte, sign *referrers.SigningKey) (d referrers.Document, err error) {
	d = referrers.Document{Type: kind, MediaType: kind, Content: content}
	if sign != nil {
		d.MediaType = referrers.TypeDSSE
		d.Content, err = sign.Sign(kind, content)
	}
	return d, err
}
