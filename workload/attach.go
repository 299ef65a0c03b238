package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/referrers"
	"github.com/ccrun/ccrun/workload/registry"
)

// What Options.Attach may name.
const (
	AttachRecord     = "record"
	AttachProvenance = "provenance"
	// AttachSBOM lists the packages on the encrypted disk, for all to read.
	AttachSBOM = "sbom"
)

// checkAttach refuses what the destination could not keep.
func (o *Options) checkAttach() error {
	for _, a := range o.Attach {
		if !slices.Contains([]string{AttachRecord, AttachProvenance, AttachSBOM}, a) {
			return hint.Usagef("attachment %q, expected record, provenance or sbom", a)
		}
	}
	registry := strings.HasPrefix(o.Destination, "docker://")
	if o.Sign != nil && !registry {
		if store, err := referrers.Open(o.System, o.Destination); err != nil || store == nil || !slices.Contains(o.Attach, AttachProvenance) {
			return hint.With(hint.Usagef("signing %s: it has no place for a signature", o.Destination), "sign into a registry (docker://), or attach signed provenance to a named layout (oci:DIR:NAME)")
		}
	}
	return nil
}

// attach stores the documents about the image, before it gets its name.
func (b *build) attach(ctx context.Context, s *sealed, mf []byte) error {
	if len(b.Attach) == 0 {
		return nil
	}
	store, err := referrers.Open(b.System, b.Destination)
	if err != nil {
		return err
	}
	if store == nil {
		if b.Sign == nil {
			return nil
		}
		return errors.New("the destination cannot hold referrers")
	}
	docs, err := b.documents(s, mf)
	if err != nil {
		return err
	}
	subject := imgspec.Descriptor{MediaType: manifest.GuessMIMEType(mf), Digest: digest.FromBytes(mf), Size: int64(len(mf))}
	for _, a := range docs {
		if err := referrers.Attach(ctx, store, subject, b.Now(), a); err != nil {
			return err
		}
	}
	return nil
}

func (b *build) documents(s *sealed, mf []byte) ([]referrers.Document, error) {
	var docs []referrers.Document
	if slices.Contains(b.Attach, AttachRecord) {
		j, err := kbs.Canonical(kbs.Record{Version: 1, Registration: s.reg, Identity: s.identity}) // no DiskKey
		if err != nil {
			return nil, err
		}
		docs = append(docs, referrers.Document{Type: referrers.TypeRecord, MediaType: referrers.TypeRecord, Content: j})
	}
	if slices.Contains(b.Attach, AttachProvenance) {
		j, err := b.provenance(s, digest.FromBytes(mf), b.fw, b.Now())
		if err != nil {
			return nil, err
		}
		a := referrers.Document{Type: referrers.TypeProvenance, MediaType: referrers.TypeProvenance, Content: j}
		if b.Sign != nil {
			a.MediaType = referrers.TypeDSSE
			if a.Content, err = b.Sign.Sign(referrers.TypeProvenance, j); err != nil {
				return nil, err
			}
		}
		docs = append(docs, a)
	}
	if slices.Contains(b.Attach, AttachSBOM) {
		docs = append(docs, referrers.Document{Type: referrers.TypeSBOM, MediaType: referrers.TypeSBOM, Content: b.sbom})
	}
	return docs, nil
}

// signImage adds a sigstore signature in the form of skopeo and podman: the
// library makes it as it copies the image, here onto itself.
func (b *build) signImage(ctx context.Context) error {
	if b.Sign == nil || !strings.HasPrefix(b.Destination, "docker://") {
		return nil
	}
	ref, err := alltransports.ParseImageName(b.Destination)
	if err != nil {
		return err
	}
	// Our own image of a moment ago: no policy to apply.
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		return err
	}
	keyFile, passphrase := b.Sign.Sigstore()
	err = registry.PatienceOf(ctx).Do(ctx, func(ctx context.Context) error {
		_, err := copy.Image(ctx, policy, ref, ref, &copy.Options{
			SignBySigstorePrivateKeyFile: keyFile, SignSigstorePrivateKeyPassphrase: passphrase,
			SourceCtx: b.System, DestinationCtx: b.System, ReportWriter: io.Discard, PreserveDigests: true,
		})
		return err
	})
	if err = errors.Join(err, policy.Destroy()); err != nil {
		return hint.With(fmt.Errorf("image is built, signing it: %w", err),
			"containers-registries.d(5) must have `use-sigstore-attachments: true` for the registry; `skopeo standalone-sign` or another build can follow")
	}
	return nil
}
