package workload

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/destination"
	"github.com/ccrun/ccrun/workload/source"
)

// Rotator is the server's side of a rotation: *kbs.AdminClient.
type Rotator interface {
	Get(ctx context.Context, id string) (*kbs.WorkloadStatus, error)
	Rotate(ctx context.Context, id string, req kbs.RotateRequest) (*kbs.RotateAnswer, error)
}

// RotateOptions say which workload's DiskKey is to be replaced, and in which
// image. All but Environment and KeepOld are required.
type RotateOptions struct {
	Environment
	WorkloadID  string
	Source      string // the workload's image
	Destination string // where the rotated image goes; may be Source where that can be replaced
	Server      Rotator
	// KeepOld leaves the old DiskKey valid until Commit.
	KeepOld bool
}

// RotateResult is what Rotate made.
type RotateResult struct {
	WorkloadID string `json:"workload_id"`
	Rotation   string `json:"rotation"`
	Image      string `json:"image"`
	Digest     string `json:"digest"`
	Committed  bool   `json:"committed"`
}

// Rotate puts the workload's disk under a new DiskKey: the server seals the
// keyslot in the image's disk anew, the image with it is published, and only
// then does the server forget the old DiskKey. Data, identity, footer and so
// the launch measurement stay. Killed at any point, it can be run again: until
// the commit both DiskKeys are released, to whichever image needs them.
func Rotate(ctx context.Context, o RotateOptions) (*RotateResult, error) {
	o.setDefaults()
	if err := destination.Check(o.Destination); err != nil {
		return nil, err
	}
	status, err := o.Server.Get(ctx, o.WorkloadID)
	if err != nil {
		return nil, registerHint(fmt.Errorf("asking the server about workload %s: %w", o.WorkloadID, err))
	}
	src, err := source.Open(ctx, o.Source, source.Options{System: o.System, TempDir: o.TempDir})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	r := &rotation{RotateOptions: o, src: src}
	if err := r.examine(ctx, &status.Registration); err != nil {
		return nil, fmt.Errorf("reading %s: %w", src.Name, err)
	}
	o.compareDigest(src.Name, src.Digest.String(), status)
	answer, err := r.stage(ctx)
	if err != nil {
		return nil, err
	}
	res := &RotateResult{WorkloadID: o.WorkloadID, Rotation: answer.Rotation, Image: src.Name, Digest: src.Digest.String()}
	if !answer.Already || o.Destination != o.Source {
		if err := r.publish(ctx, res); err != nil {
			return nil, hint.With(fmt.Errorf("writing rotated image: %w", err), "nothing is lost: both disk keys are valid; run the command again")
		}
	}
	if o.KeepOld {
		return res, nil
	}
	if err := Commit(ctx, o.Server, o.WorkloadID, res.Rotation, res.Digest); err != nil {
		return nil, err
	}
	res.Committed = true
	return res, nil
}

// Commit makes the server forget the workload's old DiskKey.
func Commit(ctx context.Context, server Rotator, id, rotation, image string) error {
	_, err := server.Rotate(ctx, id, kbs.RotateRequest{Commit: &kbs.RotateCommit{Rotation: rotation, Image: image}})
	if err != nil {
		return registerHint(fmt.Errorf("committing rotation of workload %s: %w", id, err))
	}
	return nil
}

// rotation is one rotation under way.
type rotation struct {
	RotateOptions
	src *source.Image

	layerBytes int64 // uncompressed
	diskAt     int64 // where the disk begins in the layer
	diskBytes  int64
	header     *luks.Header
	front      []byte // the disk's new first bytes
}

// examine reads the image once, to its end, and proves that it is the one
// registered.
func (r *rotation) examine(ctx context.Context, reg *kbs.Registration) error {
	if len(r.src.Layers) != 1 {
		return hint.With(fmt.Errorf("image of %d layers, expected one: not a workload image", len(r.src.Layers)), "`ccrun build` makes one")
	}
	rc, err := r.src.Layers[0].Stream(ctx)
	if err != nil {
		return err
	}
	defer rc.Close()
	n := &position{r: rc}
	done := r.meter("reading image", r.src.SizeBytes())
	tr := tar.NewReader(&blob.Counter{R: n, Count: done})
	var identity *krun.Identity
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		switch path.Clean(h.Name) {
		case krun.InitrdFile:
			identity, err = readIdentity(tr)
		case krun.DiskFile:
			err = r.readDisk(tr, n.at, h.Size)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path.Clean(h.Name), err)
		}
	}
	if _, err := io.Copy(io.Discard, n); err != nil { // where the digest is checked
		return err
	}
	r.layerBytes = n.at
	return r.compare(identity, reg)
}

func readIdentity(from io.Reader) (*krun.Identity, error) {
	b, err := bounded.Read(from, krun.InitrdFile, maxInitrdBytes)
	if err != nil {
		return nil, err
	}
	id, _, err := firmware.InspectInitrd(b)
	return id, err
}

func (r *rotation) readDisk(from io.Reader, at, size int64) error {
	if r.header != nil {
		return errors.New("there twice")
	}
	head := make([]byte, min(size, headBytes))
	if _, err := io.ReadFull(from, head); err != nil {
		return err
	}
	var err error
	r.diskAt, r.diskBytes = at, size
	r.header, err = luks.ReadHeader(bytes.NewReader(head), size)
	return err
}

func (r *rotation) compare(id *krun.Identity, reg *kbs.Registration) error {
	if id == nil || r.header == nil {
		return hint.With(fmt.Errorf("no /%s with an identity or no /%s in it: not a workload image", krun.InitrdFile, krun.DiskFile), "`ccrun build` makes one")
	}
	canonical, err := id.Encode()
	if err != nil {
		return err
	}
	if id.WorkloadID != kbs.WorkloadOf(r.WorkloadID) || kbs.Sum384(canonical) != reg.IdentityDigest {
		return hint.With(fmt.Errorf("it is the image of workload %s with identity %s, registered is %s with %s",
			id.WorkloadID, kbs.Sum384(canonical), reg.WorkloadID, reg.IdentityDigest), "give the image that was built for this registration; `ccrun workload show` lists versions, of which ID@N names one")
	}
	g, err := r.header.Geometry()
	if err != nil {
		return err
	}
	if !sameGeometry(g, id.Disk.Geometry) || g.DataOffsetBytes > r.diskBytes {
		return errors.New("LUKS2 header and measured identity describe different disks")
	}
	return nil
}

// stage has the server seal the keyslot anew.
func (r *rotation) stage(ctx context.Context) (*kbs.RotateAnswer, error) {
	s, err := r.header.SealedSlot()
	if err != nil {
		return nil, err
	}
	a, err := r.Server.Rotate(ctx, r.WorkloadID, kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: kbs.Keyslot{
		KDF:  kbs.KeyslotKDF{Type: s.KDF.Type, Salt: s.Salt, Iterations: s.KDF.Iterations, MemoryKiB: s.KDF.MemoryKiB, Threads: s.KDF.Threads},
		Area: s.Area, KeyBytes: s.VolumeKeyBytes, DigestSalt: s.DigestSalt, DigestIterations: s.DigestIterations, Digest: s.Digest,
	}}})
	if err != nil {
		return nil, registerHint(fmt.Errorf("staging rotation of workload %s: %w", r.WorkloadID, err))
	}
	if a.Already {
		return a, nil
	}
	if a.KDF == nil || a.Rotation == "" {
		return nil, errors.New("staging rotation: the server sends no keyslot")
	}
	kdf := luks.KDF{Type: a.KDF.Type, Hash: "sha256", Iterations: a.KDF.Iterations, MemoryKiB: a.KDF.MemoryKiB, Threads: a.KDF.Threads}
	if r.front, err = r.header.ReplaceSlot(kdf, a.KDF.Salt, a.Area, r.Rand); err != nil {
		return nil, fmt.Errorf("rewriting LUKS2 header: %w", err)
	}
	return a, nil
}

// publish writes the image with the new header.
func (r *rotation) publish(ctx context.Context, res *RotateResult) error {
	dst, err := r.openTarget(ctx, r.Destination)
	if err != nil {
		return err
	}
	defer dst.close()
	layer, err := dst.PutLayer(ctx, r.layerBytes, r.write)
	if err != nil {
		return err
	}
	config := *r.src.Config
	config.RootFS.DiffIDs = []digest.Digest{layer.Digest}
	cb, err := json.Marshal(config)
	if err != nil {
		return err
	}
	mf, err := imageManifest(dst.Accepts(), cb, layer, config.Config.Labels)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	res.Image, res.Digest = dst.name, digest.FromBytes(mf).String()
	if err := dst.Publish(ctx, cb, mf); err != nil {
		return err
	}
	r.compareName(ctx, dst.name, res.Digest)
	return nil
}

// write is the layer with the disk's front replaced. The source is closed, and
// has been verified to its end, before the last byte is.
func (r *rotation) write(ctx context.Context, to io.Writer) (err error) {
	rc, err := r.src.Layers[0].Stream(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	w := &meterWriter{ctx, to, r.meter("writing image", r.layerBytes)}
	if _, err := io.CopyN(w, rc, r.diskAt); err != nil {
		return err
	}
	if _, err := w.Write(r.front); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, rc, int64(len(r.front))); err != nil {
		return err
	}
	_, err = io.Copy(w, rc)
	return err
}

// position is how far a stream has been read.
type position struct {
	r  io.Reader
	at int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at += int64(n)
	return n, err
}
