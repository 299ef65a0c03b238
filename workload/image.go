package workload

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/containers/image/v5/manifest"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/blob"
)

// FormatVersion is the value of krun.LabelVersion: of the layout of a workload
// image.
const FormatVersion = "1"

// labels describes the registered workload r. An empty source is not told.
func labels(r *kbs.Registration, source digest.Digest, exposed []string) map[string]string {
	var launch []string
	firmware := ""
	for _, m := range r.ReferenceValues.Measurements {
		launch = append(launch, m.Profile+"="+m.LaunchDigest.String())
		firmware = cmp.Or(firmware, m.Firmware) // the one that is built for is the first
	}
	l := map[string]string{
		krun.LabelVersion:        FormatVersion,
		krun.LabelTEE:            string(r.ReferenceValues.TEE),
		krun.LabelWorkloadID:     r.WorkloadID,
		krun.LabelIdentityDigest: r.IdentityDigest.String(),
		krun.LabelLaunchDigests:  strings.Join(launch, ","),
		krun.LabelFirmware:       firmware,
	}
	if source != "" {
		l[krun.LabelSource] = source.String()
	}
	if len(exposed) > 0 {
		l[krun.LabelPorts] = strings.Join(exposed, ",")
	}
	return l
}

// imageConfig is the configuration of the workload image. Nothing of the
// source's own configuration but its ports is in it: the rest is encrypted.
func imageConfig(created time.Time, diffID digest.Digest, labels map[string]string, exposed []string) ([]byte, error) {
	return json.Marshal(imgspec.Image{
		Created:  &created,
		Platform: imgspec.Platform{Architecture: "amd64", OS: "linux"},
		Config: imgspec.ImageConfig{
			Entrypoint:   []string{"/" + krun.EntrypointFile},
			WorkingDir:   "/",
			Labels:       labels,
			ExposedPorts: set(exposed),
			StopSignal:   stopSignal(labels),
		},
		RootFS:  imgspec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []imgspec.History{{Created: &created, CreatedBy: "ccrun build"}},
	})
}

func set(names []string) map[string]struct{} {
	m := make(map[string]struct{}, len(names))
	for _, n := range names {
		m[n] = struct{}{}
	}
	return m
}

// stopSignal is what Podman sends the VMM. libkrun takes SIGINT alone, as an
// interrupt on the guest's console, which the agent passes on as the signal
// that the source image asks for. Elsewhere the default does.
func stopSignal(labels map[string]string) string {
	if kbs.TEE(labels[krun.LabelTEE]) == kbs.SNP && !strings.HasPrefix(labels[krun.LabelLaunchDigests], krun.HintQEMUSNP+"=") {
		return "SIGINT"
	}
	return ""
}

// imageManifest is an OCI manifest where the destination takes one, else a
// Docker one, which has no annotations.
func imageManifest(accepted []string, config []byte, layer blob.Info, annotations map[string]string) ([]byte, error) {
	configDigest, configSize := digest.FromBytes(config), int64(len(config))
	if len(accepted) == 0 || slices.Contains(accepted, imgspec.MediaTypeImageManifest) {
		return json.Marshal(imgspec.Manifest{
			Versioned:   specs.Versioned{SchemaVersion: 2},
			MediaType:   imgspec.MediaTypeImageManifest,
			Config:      imgspec.Descriptor{MediaType: imgspec.MediaTypeImageConfig, Digest: configDigest, Size: configSize},
			Layers:      []imgspec.Descriptor{{MediaType: imgspec.MediaTypeImageLayer, Digest: layer.Digest, Size: layer.Size}},
			Annotations: annotations,
		})
	}
	// Not the "uncompressed" type: a docker-archive stores no manifest, and this
	// is the one that readers make up, so that all agree on its digest.
	m := manifest.Schema2FromComponents(
		manifest.Schema2Descriptor{MediaType: manifest.DockerV2Schema2ConfigMediaType, Digest: configDigest, Size: configSize},
		[]manifest.Schema2Descriptor{{MediaType: manifest.DockerV2Schema2LayerMediaType, Digest: layer.Digest, Size: layer.Size}})
	return m.Serialize()
}

// description is an image's configuration and manifest.
type description struct{ config, manifest []byte }

func describeImage(accepted []string, created time.Time, layer blob.Info, labels map[string]string, exposed []string) (*description, error) {
	config, err := imageConfig(created, layer.Digest, labels, exposed)
	if err != nil {
		return nil, err
	}
	mf, err := imageManifest(accepted, config, layer, labels)
	return &description{config, mf}, err
}

func (d *description) digest() string { return digest.FromBytes(d.manifest).String() }

func (d *description) id() string { return digest.FromBytes(d.config).String() }
