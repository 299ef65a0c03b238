package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/referrers"
	"github.com/ccrun/ccrun/workload/sbom"
)

func (v *verification) attachments(ctx context.Context) error {
	store, err := referrers.Open(v.System, v.Image)
	if err != nil {
		return err
	}
	var docs []referrers.Document
	if store != nil {
		if docs, err = referrers.Read(ctx, store, digest.Digest(v.out.Digest)); err != nil {
			return err
		}
	}
	for _, k := range []struct {
		name, kind string
		judge      func([]byte) (string, error)
	}{
		{AttachRecord, referrers.TypeRecord, v.record}, {AttachProvenance, referrers.TypeProvenance, v.provenance}, {AttachSBOM, referrers.TypeSBOM, v.sbom},
	} {
		v.judge(k.name, k.kind, docs, k.judge)
	}
	return nil
}

// judge passes if one document of the kind is good: others may have put bad
// ones beside it. With a key only signed provenance counts.
func (v *verification) judge(name, kind string, docs []referrers.Document, judge func([]byte) (string, error)) {
	required := slices.Contains(v.Require, name) || name == AttachProvenance && v.publicKey != nil && !strings.HasPrefix(v.Image, "docker://")
	var errs []error
	for _, d := range docs {
		if d.Type != kind {
			continue
		}
		content, err := v.opened(d)
		detail := ""
		if err == nil {
			detail, err = judge(content)
		}
		if err == nil {
			v.check(name, true, "%s", detail)
			return
		}
		errs = append(errs, err)
	}
	switch {
	case len(errs) > 0:
		v.check(name, false, "%v", errors.Join(errs...))
	case required:
		v.check(name, false, "none attached")
	}
}

// opened takes provenance out of its envelope.
func (v *verification) opened(d referrers.Document) ([]byte, error) {
	switch {
	case d.Type != referrers.TypeProvenance:
		return d.Content, nil
	case v.publicKey != nil:
		return referrers.OpenEnvelope(d.Content, referrers.TypeProvenance, v.publicKey)
	case d.MediaType == referrers.TypeDSSE: // signed by somebody whose key was not given
		return referrers.EnvelopePayload(d.Content)
	}
	return d.Content, nil
}

func (v *verification) record(b []byte) (string, error) {
	var r kbs.Record
	if err := kbs.UnmarshalStrict(b, &r); err != nil {
		return "", err
	}
	switch {
	case len(r.DiskKey) > 0:
		return "", errors.New("the record holds a disk key: it is public now, rotate it")
	case r.Registration.Image != v.out.Digest:
		return "", fmt.Errorf("record of image %s", r.Registration.Image)
	case r.Registration.IdentityDigest.String() != v.identity() || kbs.Sum384(r.Identity).String() != v.identity():
		return "", fmt.Errorf("record of identity %s", r.Registration.IdentityDigest)
	}
	return "fits the identity", v.sameMeasurements(func(yield func(string) bool) {
		for _, m := range r.Registration.ReferenceValues.Measurements {
			if !yield(m.LaunchDigest.String()) {
				return
			}
		}
	})
}

// sameMeasurements compares with what the image says of itself.
func (v *verification) sameMeasurements(got func(func(string) bool)) error {
	want := slices.Sorted(slices.Values(v.labelled()))
	if have := slices.Sorted(got); len(have) == 0 || !slices.Equal(have, want) {
		return fmt.Errorf("launch measurements %v, the image's label has %v", have, want)
	}
	return nil
}

// labelled are the measurements in the image's label.
func (v *verification) labelled() []string {
	var list []string
	for _, l := range strings.Split(v.in.Image.Labels[krun.LabelLaunchDigests], ",") {
		_, hex, _ := strings.Cut(l, "=")
		list = append(list, hex)
	}
	return list
}

func (v *verification) provenance(b []byte) (string, error) {
	s, err := decodeStatement(b, digest.Digest(v.out.Digest))
	if err != nil {
		return "", err
	}
	if got := s.byproduct("identity", "sha384"); !slices.Equal(got, []string{v.identity()}) {
		return "", fmt.Errorf("provenance of identity %v, the initrd has %s", got, v.identity())
	}
	if err := v.sameMeasurements(slices.Values(s.byproduct("launch-measurement", "sha384"))); err != nil {
		return "", err
	}
	for _, d := range s.Predicate.BuildDefinition.ResolvedDependencies {
		if d.Name == "source" {
			v.out.Source = "sha256:" + d.Digest["sha256"]
		}
	}
	if want := v.in.Image.Labels[krun.LabelSource]; v.out.Source != want {
		return "", fmt.Errorf("provenance of source %s, the image's label has %s", v.out.Source, want)
	}
	from := v.out.Source
	if from == "" {
		from = "a source that it does not name"
	}
	if v.publicKey != nil {
		return "signed by the key, built from " + from, nil
	}
	return "unsigned, says it is built from " + from, nil
}

func (v *verification) sbom(b []byte) (string, error) {
	n, err := sbom.Count(b)
	return fmt.Sprintf("%d packages", n), err
}
