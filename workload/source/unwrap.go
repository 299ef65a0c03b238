package source

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/ext4read"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/scratch"
)

// maxProcessBytes bounds the image configuration on a foreign disk.
const maxProcessBytes = 1 << 20

// unwrap replaces s, a workload image such as `buildah mkcw` makes, by what is
// on its disk: one layer, and the configuration that was to run there. The
// disk and the layer made of it go through spools, never in the clear.
func (s *Image) unwrap(ctx context.Context, passphrase secret.Bytes, dir string, limits rootfs.Limits) error {
	disk, err := s.spoolDisk(ctx, dir)
	if err != nil {
		return err
	}
	defer disk.Close()
	fs, err := openForeign(disk, passphrase)
	if err != nil {
		return fmt.Errorf("opening /%s: %w", krun.DiskFile, err)
	}
	js, err := fs.ReadFile(path.Base(krun.ProcessPath), maxProcessBytes)
	if err != nil {
		return fmt.Errorf("reading %s: %w", krun.ProcessPath, err)
	}
	config, err := foreignConfig(js)
	if err != nil {
		return fmt.Errorf("reading %s: %w", krun.ProcessPath, err)
	}
	l, err := foreignLayer(ctx, fs, dir, limits)
	if err != nil {
		return fmt.Errorf("reading /%s: %w", krun.DiskFile, err)
	}
	var errs []error
	for _, old := range s.Layers {
		errs = append(errs, old.Close())
	}
	s.Layers, s.Config.Config, s.Config.RootFS.DiffIDs = []*Layer{l}, *config, []digest.Digest{l.diffID}
	return errors.Join(errs...)
}

// spoolDisk copies /disk.img, still encrypted, to where it can be read in any
// order.
func (s *Image) spoolDisk(ctx context.Context, dir string) (*scratch.Spool, error) {
	var disk *scratch.Spool
	for _, l := range s.Layers {
		found, err := l.spoolFile(ctx, dir, krun.DiskFile)
		if err != nil {
			return nil, errors.Join(err, disk.Close())
		}
		if found != nil {
			if err := disk.Close(); err != nil {
				return nil, err
			}
			disk = found
		}
	}
	if disk == nil {
		return nil, hint.With(fmt.Errorf("no /%s in it: not a workload image", krun.DiskFile), "without --source-passphrase-file it is built like any image")
	}
	return disk, nil
}

// spoolFile returns nil if the layer does not have the file. The layer is
// read, and verified, to its end.
func (l *Layer) spoolFile(ctx context.Context, dir, name string) (found *scratch.Spool, err error) {
	rc, err := l.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, rc.Close()); err != nil {
			err = errors.Join(err, found.Close())
			found = nil
		}
	}()
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return found, l.Wrap(err)
		}
		if path.Clean("/"+h.Name) != "/"+name || h.Typeflag != tar.TypeReg || found != nil {
			continue
		}
		if found, err = scratch.NewSpool(dir); err != nil {
			return nil, err
		}
		w := found.Writer()
		if _, err := io.Copy(w, tr); err != nil {
			return found, l.Wrap(err)
		}
		if err := w.Close(); err != nil {
			return found, err
		}
	}
}

// openForeign opens a disk with a passphrase: LUKS1 as buildah writes it, or
// LUKS2. Nothing about the disk was measured. Its header is believed because the
// image's digest was verified, and its content deserves as much trust as that
// digest.
func openForeign(disk *scratch.Spool, passphrase secret.Bytes) (*ext4read.FS, error) {
	end := disk.SizeBytes()
	footer, err := krun.ReadFooter(disk, disk.SizeBytes())
	if err == nil {
		end = footer.Start
	} else if !errors.Is(err, krun.ErrNoFooter) {
		return nil, err
	}
	g, vk, err := unlockForeign(disk, disk.SizeBytes(), end, passphrase)
	if errors.Is(err, luks.ErrWrongPassphrase) {
		return nil, hint.With(err, "check --source-passphrase-file: a line end after the passphrase is taken off, nothing else")
	}
	if err != nil {
		return nil, err
	}
	plain, err := luks.NewReader(disk, g, vk)
	if err != nil {
		return nil, err
	}
	// Holes cost nothing on the disk, so files may be larger than it.
	return ext4read.Open(plain, g.PlainBytes, ext4read.Limits{Entries: 1 << 20, Bytes: 256 << 30})
}

func unlockForeign(r io.ReaderAt, size, end int64, passphrase secret.Bytes) (g luks.Geometry, vk *luks.VolumeKey, err error) {
	v1, err := luks.ReadV1Header(r, size)
	if err == nil {
		if g, err = v1.Geometry(end); err == nil {
			vk, err = v1.Unlock(passphrase)
		}
		return g, vk, err
	}
	if !errors.Is(err, luks.ErrNotLUKS1) {
		return g, nil, err
	}
	v2, err := luks.ReadHeader(r, size)
	if err != nil {
		return g, nil, err
	}
	if g, err = v2.Geometry(); err == nil {
		vk, err = v2.Unlock(passphrase)
	}
	return g, vk, err
}

// foreignConfig reads an OCI image configuration (buildah), or one whose
// members are at top level (oci2cw, ours).
func foreignConfig(js []byte) (*imgspec.ImageConfig, error) {
	var nested struct {
		Config *imgspec.ImageConfig `json:"config"`
	}
	if err := json.Unmarshal(js, &nested); err != nil {
		return nil, err
	}
	if nested.Config != nil {
		return nested.Config, nil
	}
	var flat imgspec.ImageConfig
	return &flat, json.Unmarshal(js, &flat)
}

// foreignLayer makes a layer, in a spool, of all files but those that were
// made for the disk.
func foreignLayer(ctx context.Context, fs *ext4read.FS, dir string, limits rootfs.Limits) (*Layer, error) {
	s, err := scratch.NewSpool(dir)
	if err != nil {
		return nil, err
	}
	l := &Layer{number: 1, spool: s, whole: true}
	h, w := sha256.New(), s.Writer()
	_, err = fs.WriteTar(ctx, io.MultiWriter(h, w), func(p string) bool { return p == "lost+found" || "/"+p == krun.ProcessPath })
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		l.index, err = rootfs.Scan(ctx, s.Reader(), limits)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	l.diffID = digest.NewDigest(digest.SHA256, h)
	l.info = types.BlobInfo{Digest: l.diffID, Size: s.SizeBytes(), MediaType: imgspec.MediaTypeImageLayer}
	return l, nil
}
