package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/luks"
)

// Inspection is what can be said of a workload image or disk without any key.
// Everything in it is the claim of whoever made it, unless Registered says
// the same.
type Inspection struct {
	Name       string              `json:"name"`
	Image      *ImageInspection    `json:"image,omitempty"` // not for a disk
	Disk       DiskInspection      `json:"disk"`
	Footer     json.RawMessage     `json:"footer,omitempty"` // as it stands at the end of the disk
	TEEConfig  *krun.TEEConfig     `json:"tee_config,omitempty"`
	Initrd     *InitrdInspection   `json:"initrd,omitempty"`
	Registered *kbs.WorkloadStatus `json:"registered,omitempty"`
	Problems   []string            `json:"problems,omitempty"`
	Warnings   []string            `json:"warnings,omitempty"` // of what is right, and yet not good

	v1 *luks.V1Header // of a classic disk
}

// ImageInspection is the OCI side.
type ImageInspection struct {
	Digest string            `json:"digest"`
	ID     string            `json:"id"`
	Layers []string          `json:"layers"` // digests
	Labels map[string]string `json:"labels"`
	Files  []FileInspection  `json:"files"`
}

// FileInspection is an entry of the image's layers.
type FileInspection struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
	Mode      string `json:"mode"`
}

// DiskInspection is the LUKS header.
type DiskInspection struct {
	SizeBytes int64               `json:"size_bytes"`
	Format    string              `json:"format,omitempty"` // "LUKS2", or "LUKS1" of classic images
	Geometry  *luks.Geometry      `json:"geometry,omitempty"`
	Keyslots  []KeyslotInspection `json:"keyslots,omitempty"`
}

// KeyslotInspection is how a keyslot stretches its passphrase.
type KeyslotInspection struct {
	Name       string `json:"name"`
	KDF        string `json:"kdf"`
	Iterations int    `json:"iterations"`
	MemoryKiB  int    `json:"memory_kib,omitempty"`
}

// InitrdInspection is the measured part that travels in the image.
type InitrdInspection struct {
	SizeBytes      int              `json:"size_bytes"`
	SHA256         string           `json:"sha256"`
	Content        []byte           `json:"-"`
	Entries        []firmware.Entry `json:"entries"`
	Identity       *krun.Identity   `json:"identity,omitempty"`
	IdentityDigest *kbs.Digest      `json:"identity_digest,omitempty"`
}

const (
	maxTEEConfigBytes = 64 << 10
	maxInitrdBytes    = 64 << 20
	// headBytes holds every LUKS2 header there is: 16 MiB by default, and the
	// integrity superblock behind it.
	headBytes = 16<<20 + 64<<10
)

// Inspect looks at name: a disk file, or else an image. status, which may be
// nil, is asked for the registration of the workload id found.
func Inspect(ctx context.Context, sys *types.SystemContext, name string, status func(context.Context, string) (*kbs.WorkloadStatus, error)) (*Inspection, error) {
	in := &Inspection{Name: name}
	var err error
	if st, serr := os.Stat(name); serr == nil && st.Mode().IsRegular() {
		err = in.diskFile(name, st.Size())
	} else {
		err = in.image(ctx, sys, name)
	}
	if err != nil {
		return nil, fmt.Errorf("inspecting %s: %w", name, err)
	}
	in.compare()
	return in, in.askServer(ctx, status)
}

func (in *Inspection) diskFile(name string, size int64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := in.header(f, size); err != nil {
		return err
	}
	footer, err := krun.ReadFooter(f, size)
	if errors.Is(err, krun.ErrNoFooter) {
		in.problem("%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	in.footer(footer.JSON)
	return nil
}

func (in *Inspection) header(r io.ReaderAt, size int64) error {
	in.Disk.SizeBytes = size
	v1, err := luks.ReadV1Header(r, size)
	if err == nil {
		return in.headerV1(v1)
	}
	if !errors.Is(err, luks.ErrNotLUKS1) {
		return err
	}
	h, err := luks.ReadHeader(r, size)
	if err != nil {
		return err
	}
	in.Disk.Format = "LUKS2"
	if g, err := h.Geometry(); err != nil {
		in.problem("LUKS2 header: %v", err)
	} else {
		in.Disk.Geometry = &g
	}
	for _, k := range h.Keyslots() {
		in.Disk.Keyslots = append(in.Disk.Keyslots, KeyslotInspection{k.Name, k.KDF.Type, k.KDF.Iterations, k.KDF.MemoryKiB})
	}
	return nil
}

func (in *Inspection) footer(js []byte) {
	in.endV1(len(js))
	if !json.Valid(js) {
		in.problem("disk footer is not JSON")
		return
	}
	in.Footer = js
	if in.TEEConfig == nil {
		in.teeConfig("disk footer", js)
	}
}

func (in *Inspection) teeConfig(what string, js []byte) {
	var c krun.TEEConfig
	err := kbs.UnmarshalStrict(js, &c)
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		in.problem("%s: %v", what, err)
		return
	}
	in.TEEConfig = &c
}

func (in *Inspection) initrd(b []byte) {
	i := &InitrdInspection{SizeBytes: len(b), SHA256: digest.FromBytes(b).Encoded(), Content: b}
	in.Initrd = i
	var err error
	i.Identity, i.Entries, err = firmware.InspectInitrd(b)
	if err != nil {
		in.problem("%s: %v", krun.InitrdFile, err)
	}
	if i.Identity == nil {
		return
	}
	canonical, err := i.Identity.Encode()
	if err != nil {
		in.problem("%s: %v", krun.InitrdFile, err)
		return
	}
	d := kbs.Sum384(canonical)
	i.IdentityDigest = &d
}

func (in *Inspection) problem(format string, a ...any) {
	in.Problems = append(in.Problems, fmt.Sprintf(format, a...))
}

// compare says where the parts contradict each other. The guest would find
// out too; here it costs nothing.
func (in *Inspection) compare() {
	if in.Initrd == nil || in.Initrd.Identity == nil {
		return
	}
	id := in.Initrd.Identity
	if id.Version < krun.IdentityVersion {
		in.Warnings = append(in.Warnings, unkeyedProcess, sharedKey)
	}
	if in.TEEConfig != nil && (in.TEEConfig.WorkloadID != id.WorkloadID || in.TEEConfig.TEE != id.TEE) {
		in.problem("%s is for workload %s on %s, the measured identity for %s on %s",
			krun.TEEConfigFile, in.TEEConfig.WorkloadID, in.TEEConfig.TEE, id.WorkloadID, id.TEE)
	}
	if g := in.Disk.Geometry; g != nil && !sameGeometry(*g, id.Disk.Geometry) {
		in.problem("LUKS2 header and measured identity describe different disks")
	}
	if n := id.Disk.ImageBytes; n != 0 && n != in.Disk.SizeBytes {
		in.problem("%s has %d bytes, the identity says %d", krun.DiskFile, in.Disk.SizeBytes, n)
	}
	if in.Image != nil && in.Image.Labels[krun.LabelIdentityDigest] != in.Initrd.IdentityDigest.String() {
		in.problem("label %s does not name the identity in %s", krun.LabelIdentityDigest, krun.InitrdFile)
	}
}

// unkeyedProcess is said of images with an identity of version 1.
const unkeyedProcess = "whoever has this image can try guesses of short secrets in its Env, Cmd and Entrypoint against its identity: build it again, and change such secrets"

// sharedKey, too.
const sharedKey = "all its instances write to its disk under one key: the host can mix their sectors; build it again"

func sameGeometry(a, b luks.Geometry) bool {
	x, errX := kbs.Canonical(a)
	y, errY := kbs.Canonical(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func (in *Inspection) askServer(ctx context.Context, status func(context.Context, string) (*kbs.WorkloadStatus, error)) error {
	if status == nil {
		return nil
	}
	if in.TEEConfig == nil {
		return errors.New("asking the server: the workload's id is not known")
	}
	s, err := status(ctx, in.TEEConfig.WorkloadID)
	var p *kbs.ProblemError
	if errors.As(err, &p) && p.Code == kbs.CodeNotFound {
		in.problem("workload %s is not registered", in.TEEConfig.WorkloadID)
		return nil
	}
	if err != nil {
		return registerHint(fmt.Errorf("asking the server about workload %s: %w", in.TEEConfig.WorkloadID, err))
	}
	in.Registered = s
	if in.Initrd != nil && in.Initrd.IdentityDigest != nil && *in.Initrd.IdentityDigest != s.Registration.IdentityDigest {
		in.problem("the server has another identity registered for workload %s", in.TEEConfig.WorkloadID)
	}
	return nil
}
