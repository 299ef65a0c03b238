package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/hint"
)

// maxNested bounds indexes within indexes; nerdctl save and some pipelines nest
// one, and the OCI image specification sets no limit.
const maxNested = 4

// chooseInstance picks the manifest for linux/amd64 out of an index, and out of
// an index in that; nil where there is none.
func chooseInstance(ctx context.Context, sys *types.SystemContext, raw types.ImageSource) (*digest.Digest, error) {
	var instance *digest.Digest
	for range maxNested + 1 {
		blob, mime, err := readManifest(ctx, image.UnparsedInstance(raw, instance))
		if err != nil {
			return nil, err
		}
		if !manifest.MIMETypeIsMultiImage(manifest.NormalizedMIMEType(mime)) {
			return instance, nil
		}
		list, err := manifest.ListFromBlob(blob, manifest.NormalizedMIMEType(mime))
		if err != nil {
			return nil, fmt.Errorf("reading image index: %w", err)
		}
		d, err := choose(sys, list)
		if err != nil {
			return nil, hint.With(fmt.Errorf("choosing from image index: %w", err), "`skopeo inspect --raw` shows which platforms there are; the guest is linux/amd64")
		}
		instance = &d
	}
	return nil, fmt.Errorf("image index in an index, %d deep, at most %d allowed", maxNested+1, maxNested)
}

// choose takes what is for any amd64 processor, or else the most that every
// processor with SEV-SNP or TDX can run: they all are of level v3.
func choose(sys *types.SystemContext, list manifest.List) (digest.Digest, error) {
	var errs []error
	for _, variant := range []string{"", "v3", "v2", "v1"} {
		wanted := *sys
		wanted.VariantChoice = variant
		d, err := list.ChooseInstance(&wanted)
		if err == nil {
			return d, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}
