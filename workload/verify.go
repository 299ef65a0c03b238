package workload

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/workload/referrers"
	"github.com/ccrun/ccrun/workload/sbom"
	"github.com/ccrun/ccrun/workload/source"
)

// VerifyOptions say what VerifyImage checks against. One of KeyPath and a
// signature policy that accepts not just anything is needed.
type VerifyOptions struct {
	Image   string
	KeyPath string // PEM public key that signed image and provenance
	// Firmware, if not empty, is measured anew together with the image's initrd.
	Firmware string
	Require  []string // Attach... that must be there
	System   *types.SystemContext
}

// ImageCheck is one thing that VerifyImage looked at.
type ImageCheck struct {
	Rule   string `json:"rule"`
	Pass   bool   `json:"pass"`
	Detail string `json:"detail"`
}

// ImageVerification is what came out. Pass is true if every check passed.
type ImageVerification struct {
	Image      string       `json:"image"`
	Digest     string       `json:"digest"`
	WorkloadID string       `json:"workload_id,omitempty"`
	Source     string       `json:"source_digest,omitempty"` // from signed provenance
	Pass       bool         `json:"pass"`
	Checks     []ImageCheck `json:"checks"`
}

// errNothingVerifies is a request to verify against nothing.
var errNothingVerifies = errors.New("no key, and the signature policy accepts unsigned images")

type verification struct {
	VerifyOptions
	out *ImageVerification
	key crypto.PublicKey
	in  *Inspection
}

// VerifyImage checks an image's signature, its content against its digests,
// its parts against each other and against the documents attached to it. The
// error says that it could not be looked at; that it is bad is in the result.
func VerifyImage(ctx context.Context, o VerifyOptions) (*ImageVerification, error) {
	v := &verification{VerifyOptions: o, out: &ImageVerification{Image: o.Image}}
	if o.System == nil {
		v.System = &types.SystemContext{}
	}
	if err := v.basis(); err != nil {
		return nil, err
	}
	in, err := Inspect(ctx, v.System, o.Image, nil) // applies policy.json, reads every byte
	if err != nil {
		return nil, err
	}
	if in.Image == nil {
		return nil, hint.Usagef("%s is a disk, expected an image", o.Image)
	}
	v.in, v.out.Digest = in, in.Image.Digest
	if err := v.signature(ctx); err != nil {
		return nil, err
	}
	v.content()
	if err := v.attachments(ctx); err != nil {
		return nil, err
	}
	if err := v.measurement(); err != nil {
		return nil, err
	}
	v.out.Pass = len(v.out.Checks) > 0
	for _, c := range v.out.Checks {
		v.out.Pass = v.out.Pass && c.Pass
	}
	return v.out, nil
}

func (v *verification) check(rule string, pass bool, format string, a ...any) {
	v.out.Checks = append(v.out.Checks, ImageCheck{rule, pass, fmt.Sprintf(format, a...)})
}

// basis refuses to verify against nothing.
func (v *verification) basis() error {
	if v.KeyPath != "" {
		var err error
		v.key, err = referrers.ReadPublicKey(v.KeyPath)
		return err
	}
	policy, err := signature.DefaultPolicy(v.System)
	if err != nil {
		return fmt.Errorf("reading signature policy: %w", err)
	}
	b, err := json.Marshal(policy)
	if err != nil {
		return err
	}
	if strings.Contains(string(b), "insecureAcceptAnything") {
		return hint.With(fmt.Errorf("%w: %w", hint.ErrUsage, errNothingVerifies), "give --key FILE, or a --signature-policy that asks for signatures everywhere")
	}
	return nil
}

// signature checks the sigstore signature of an image in a registry. Elsewhere
// the signed provenance stands for it: see provenance.
func (v *verification) signature(ctx context.Context) error {
	if v.key == nil {
		v.check("signature", true, "the signature policy accepts it")
		return nil
	}
	if !strings.HasPrefix(v.Image, "docker://") {
		return nil
	}
	src, err := source.Open(ctx, v.Image, source.Options{System: v.System})
	if err != nil {
		return err
	}
	defer src.Close()
	if src.Digest.String() != v.out.Digest {
		return fmt.Errorf("the name %s has moved from %s to %s meanwhile", v.Image, v.out.Digest, src.Digest)
	}
	want, err := signature.NewPRSigstoreSignedKeyPath(v.KeyPath, signature.NewPRMMatchRepository())
	if err != nil {
		return err
	}
	err = src.AllowedBy(ctx, &signature.Policy{Default: signature.PolicyRequirements{want}})
	if err == nil {
		v.check("signature", true, "signed by the key, for this repository")
	} else {
		v.check("signature", false, "%v (containers-registries.d(5) must have `use-sigstore-attachments: true` for the registry)", err)
	}
	return nil
}

// content compares the image's own parts.
func (v *verification) content() {
	for _, p := range v.in.Problems {
		v.check("content", false, "%s", p)
	}
	switch {
	case v.in.Initrd == nil || v.in.Initrd.Identity == nil:
		v.check("content", false, "no identity in the initrd")
	case len(v.in.Problems) == 0:
		v.out.WorkloadID = v.in.Initrd.Identity.WorkloadID
		v.check("content", true, "every digest fits, disk and identity %s belong together", v.in.Initrd.IdentityDigest)
	}
}

func (v *verification) identity() string {
	if v.in.Initrd == nil || v.in.Initrd.IdentityDigest == nil {
		return "none"
	}
	return v.in.Initrd.IdentityDigest.String()
}

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
	required := slices.Contains(v.Require, name) || name == AttachProvenance && v.key != nil && !strings.HasPrefix(v.Image, "docker://")
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
	case v.key != nil:
		return referrers.OpenEnvelope(d.Content, referrers.TypeProvenance, v.key)
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
	want := slices.Sorted(maps.Values(v.labelled()))
	if have := slices.Sorted(got); len(have) == 0 || !slices.Equal(have, want) {
		return fmt.Errorf("launch measurements %v, the image's label has %v", have, want)
	}
	return nil
}

// labelled are the measurements in the image's label, by profile.
func (v *verification) labelled() map[string]string {
	m := map[string]string{}
	for _, l := range strings.Split(v.in.Image.Labels[krun.LabelLaunchDigests], ",") {
		profile, hex, _ := strings.Cut(l, "=")
		m[profile] = hex
	}
	return m
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
	if v.key != nil {
		return "signed by the key, built from " + v.out.Source, nil
	}
	return "unsigned, says it is built from " + v.out.Source, nil
}

func (v *verification) sbom(b []byte) (string, error) {
	n, err := sbom.Count(b)
	return fmt.Sprintf("%d packages", n), err
}

// measurement computes the launch digests anew.
func (v *verification) measurement() error {
	if v.Firmware == "" || v.in.TEEConfig == nil || v.in.Initrd == nil {
		return nil
	}
	fw, err := firmware.Load(v.Firmware)
	if err != nil {
		return err
	}
	c := v.in.TEEConfig
	list, err := measurements(&Options{TEE: c.TEE, CPUs: c.CPUs, MemoryMiB: c.MemoryMiB}, fw, v.in.Initrd.Content)
	if err != nil {
		return err
	}
	err = v.sameMeasurements(func(yield func(string) bool) {
		for _, m := range list {
			if !yield(m.LaunchDigest.String()) {
				return
			}
		}
	})
	if err != nil {
		v.check("measurement", false, "with this firmware: %v", err)
	} else {
		v.check("measurement", true, "as computed with this firmware")
	}
	return nil
}
