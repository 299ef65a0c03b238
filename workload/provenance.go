package workload

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
)

const (
	statementType  = "https://in-toto.io/Statement/v1"
	provenanceType = "https://slsa.dev/provenance/v1"
	buildType      = "https://github.com/ccrun/ccrun/build/v1"
	builderID      = "https://github.com/ccrun/ccrun"
)

// Statement is an in-toto statement with SLSA provenance (v1).
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Provenance `json:"predicate"`
}

// Resource is something with a digest.
type Resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"` // algorithm to hex
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Provenance is the predicate: what went in, who built it, what came out.
type Provenance struct {
	BuildDefinition struct {
		BuildType            string            `json:"buildType"`
		ExternalParameters   map[string]string `json:"externalParameters"`
		ResolvedDependencies []Resource        `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version,omitempty"`
		} `json:"builder"`
		Metadata struct {
			FinishedOn string `json:"finishedOn"`
		} `json:"metadata"`
		Byproducts []Resource `json:"byproducts"`
	} `json:"runDetails"`
}

// provenance says how the image with that manifest came to be. Names of local
// files are left out: they say more about the builder than about the build.
func (b *build) provenance(s *sealed, image digest.Digest, fw *firmware.Bundle, now time.Time) ([]byte, error) {
	st := Statement{Type: statementType, PredicateType: provenanceType,
		Subject: []Resource{{Name: publicName(b.image), Digest: map[string]string{"sha256": image.Encoded()}}}}
	d := &st.Predicate.BuildDefinition
	d.BuildType = buildType
	d.ExternalParameters = map[string]string{
		"tee": string(b.TEE), "cpus": fmt.Sprint(b.CPUs), "memory_mib": fmt.Sprint(b.MemoryMiB), "filesystem": b.Filesystem, "workload_id": b.WorkloadID,
	}
	agent := digest.FromBytes(b.Agent)
	d.ResolvedDependencies = []Resource{
		{Name: "source", URI: publicName(b.src.Name), Digest: map[string]string{b.src.Digest.Algorithm().String(): b.src.Digest.Encoded()}},
		{Name: "firmware", Digest: map[string]string{"sha256": hex.EncodeToString(fw.Digest[:])}},
		{Name: "agent", Digest: map[string]string{"sha256": agent.Encoded()}},
	}
	r := &st.Predicate.RunDetails
	r.Builder.ID = builderID
	if b.Version != "" {
		r.Builder.Version = map[string]string{"ccrun": b.Version}
	}
	r.Metadata.FinishedOn = now.UTC().Format(time.RFC3339)
	r.Byproducts = []Resource{
		{Name: "identity", Digest: map[string]string{"sha384": s.reg.IdentityDigest.String()}},
		{Name: "initrd", Digest: map[string]string{"sha256": digest.FromBytes(s.initrd).Encoded()}},
	}
	for _, m := range s.reg.ReferenceValues.Measurements {
		r.Byproducts = append(r.Byproducts, Resource{
			Name: "launch-measurement", Digest: map[string]string{"sha384": m.LaunchDigest.String()}, Annotations: map[string]string{"profile": m.Profile},
		})
	}
	return kbs.Canonical(st)
}

// publicName is name if it is one in a registry.
func publicName(name string) string {
	if strings.HasPrefix(name, "docker://") || strings.HasPrefix(name, "docker:") {
		return name
	}
	return ""
}

// byproduct returns the digests of what the build made under that name.
func (s *Statement) byproduct(name, algorithm string) []string {
	var out []string
	for _, r := range s.Predicate.RunDetails.Byproducts {
		if r.Name == name {
			out = append(out, r.Digest[algorithm])
		}
	}
	return out
}

// decodeStatement reads provenance about the image, and nothing else.
func decodeStatement(b []byte, image digest.Digest) (*Statement, error) {
	var s Statement
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("reading provenance: %w", err)
	}
	switch {
	case s.Type != statementType || s.PredicateType != provenanceType || s.Predicate.BuildDefinition.BuildType != buildType:
		return nil, fmt.Errorf("provenance of type %.60q, expected ours", s.Predicate.BuildDefinition.BuildType)
	case len(s.Subject) != 1 || s.Subject[0].Digest[image.Algorithm().String()] != image.Encoded():
		return nil, fmt.Errorf("provenance is not about %s", image)
	}
	return &s, nil
}
