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

// provenance is what the builder knows of how the image came to be.
type provenance struct {
	image, imageDigest string
	source             string
	sourceDigest       digest.Digest // empty: not to be told, nor its name
	machine            *MachineOptions
	filesystem         string
	firmware           []*firmware.Bundle
	version            string // of ccrun
	finished           time.Time
}

// statement says how the image came to be. Names of local files are left out:
// they say more about the builder than about the build.
func (p *provenance) statement(s *sealed) ([]byte, error) {
	st := Statement{Type: statementType, PredicateType: provenanceType,
		Subject: []Resource{{Name: publicName(p.image), Digest: map[string]string{"sha256": digest.Digest(p.imageDigest).Encoded()}}}}
	d := &st.Predicate.BuildDefinition
	d.BuildType = buildType
	d.ExternalParameters = map[string]string{
		"tee": string(p.machine.TEE), "cpus": fmt.Sprint(p.machine.CPUs), "memory_mib": fmt.Sprint(p.machine.MemoryMiB),
		"filesystem": p.filesystem, "workload_id": s.reg.WorkloadID,
	}
	if p.sourceDigest != "" {
		d.ResolvedDependencies = []Resource{{Name: "source", URI: publicName(p.source),
			Digest: map[string]string{p.sourceDigest.Algorithm().String(): p.sourceDigest.Encoded()}}}
	}
	for _, fw := range p.firmware {
		d.ResolvedDependencies = append(d.ResolvedDependencies, Resource{Name: "firmware", Digest: map[string]string{"sha256": hex.EncodeToString(fw.Digest[:])}})
	}
	d.ResolvedDependencies = append(d.ResolvedDependencies,
		Resource{Name: "agent", Digest: map[string]string{"sha256": digest.FromBytes(p.machine.Agent).Encoded()}})
	r := &st.Predicate.RunDetails
	r.Builder.ID = builderID
	if p.version != "" {
		r.Builder.Version = map[string]string{"ccrun": p.version}
	}
	r.Metadata.FinishedOn = p.finished.UTC().Format(time.RFC3339)
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
