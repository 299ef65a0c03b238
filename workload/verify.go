package workload

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/workload/referrers"
	"github.com/ccrun/ccrun/workload/source"
)

// VerifyOptions say what VerifyImage checks against. One of KeyPath and a
// signature policy that accepts not just anything is needed.
type VerifyOptions struct {
	Image   string
	KeyPath string // PEM public key that signed image and provenance
	// Firmware, if there is any, is measured anew together with the image's
	// initrd: all that the image was built for.
	Firmware []string
	Require  []string // Attach... that must be there
	// Record is the owner's own; nil: none. It alone says what the image was
	// built from, unless that was published.
	Record *kbs.Record
	System *types.SystemContext
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
	Source     string       `json:"source_digest,omitempty"` // from signed provenance, or the owner's record
	Pass       bool         `json:"pass"`
	Checks     []ImageCheck `json:"checks"`
}

// errNothingVerifies is a request to verify against nothing.
var errNothingVerifies = errors.New("no key, and the signature policy accepts unsigned images")

type verification struct {
	VerifyOptions
	out       *ImageVerification
	publicKey crypto.PublicKey
	in        *Inspection
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
	v.ownRecord()
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
		v.publicKey, err = referrers.ReadPublicKey(v.KeyPath)
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
	if v.publicKey == nil {
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
		if v.in.Initrd.Identity.Policy.AllowACPI {
			v.check("acpi", true, "ALLOWED: %s", krun.ACPIWarning)
		}
	}
}

func (v *verification) identity() string {
	if v.in.Initrd == nil || v.in.Initrd.IdentityDigest == nil {
		return "none"
	}
	return v.in.Initrd.IdentityDigest.String()
}

// ownRecord compares with what the owner kept of the build.
func (v *verification) ownRecord() {
	if v.Record == nil {
		return
	}
	r := &v.Record.Registration
	switch {
	case r.IdentityDigest.String() != v.identity():
		v.check("own record", false, "it is of identity %s, the image has %s", r.IdentityDigest, v.identity())
	case r.Image != v.out.Digest:
		v.check("own record", false, "it is of image %s: this one was rotated since, or is not what was built", r.Image)
	case v.Record.Source == "":
		v.check("own record", true, "of this image; it does not say from what that was built")
	default:
		v.out.Source = v.Record.Source
		v.check("own record", true, "of this image, built from %s", v.Record.Source)
	}
}

// measurement computes the launch digests anew.
func (v *verification) measurement() error {
	if len(v.Firmware) == 0 || v.in.TEEConfig == nil || v.in.Initrd == nil {
		return nil
	}
	var firmwares []*firmware.Bundle
	for _, path := range v.Firmware {
		fw, err := firmware.Load(path)
		if err != nil {
			return err
		}
		firmwares = append(firmwares, fw)
	}
	c := v.in.TEEConfig
	m := MachineOptions{TEE: c.TEE, CPUs: c.CPUs, MemoryMiB: c.MemoryMiB}
	m.AllowACPI = v.in.Initrd.Identity != nil && v.in.Initrd.Identity.Policy.AllowACPI
	list, err := m.measurements(firmwares, v.in.Initrd.Content)
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
