package wrapper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
)

const (
	maxSpecBytes   = 16 << 20
	maxConfigBytes = 64 << 10
)

// bundle is the OCI bundle of a container about to be created. Members of
// its specification that we do not change keep their bytes.
type bundle struct {
	dir         string
	specPath    string
	spec        map[string]json.RawMessage
	mode        os.FileMode
	rootfs      string
	mounts      []string // destinations
	annotations map[string]string
}

func openBundle(c crun.Command) (*bundle, error) {
	dir, err := filepath.Abs(c.Bundle) // "" is the working directory
	if err != nil {
		return nil, fmt.Errorf("finding bundle: %w", err)
	}
	b := &bundle{dir: dir, specPath: filepath.Join(dir, "config.json")}
	if c.Config != "" && c.Config != "config.json" {
		if b.specPath, err = filepath.Abs(c.Config); err != nil {
			return nil, fmt.Errorf("finding specification: %w", err)
		}
	}
	raw, err := b.readSpec()
	if err != nil {
		return nil, fmt.Errorf("reading specification: %w", err)
	}
	var view struct {
		Root struct {
			Path string `json:"path"`
		} `json:"root"`
		Mounts []struct {
			Destination string `json:"destination"`
		} `json:"mounts"`
		Annotations map[string]string `json:"annotations"`
	}
	for _, v := range []any{&b.spec, &view} {
		if err := json.Unmarshal(raw, v); err != nil {
			return nil, fmt.Errorf("decoding %s: %w", b.specPath, err)
		}
	}
	if view.Root.Path == "" {
		return nil, fmt.Errorf("%s has no root.path", b.specPath)
	}
	b.rootfs, b.annotations = absolute(dir, view.Root.Path), view.Annotations
	for _, m := range view.Mounts {
		b.mounts = append(b.mounts, path.Clean("/"+m.Destination))
	}
	return b, nil
}

func (b *bundle) readSpec() ([]byte, error) {
	f, err := os.Open(b.specPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b.mode = info.Mode().Perm()
	return readRegular(f, maxSpecBytes)
}

// image is what a workload image holds for us.
type image struct {
	config krun.TEEConfig
	initrd []byte // nil for an image that boots libkrunfw's own initrd
}

// readImage reads the image's files; nil means that it asks for no TEE. The
// image's author is not trusted by this host: os.Root keeps every link within
// the root file system, and sizes are bounded.
func (b *bundle) readImage() (*image, error) {
	root, err := os.OpenRoot(b.rootfs)
	if err != nil {
		return nil, fmt.Errorf("opening root file system: %w", err)
	}
	defer root.Close()
	config, err := readIn(root, krun.TEEConfigFile, maxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) && !b.isMount(krun.TEEConfigFile) {
		return nil, nil
	}
	for _, name := range []string{krun.TEEConfigFile, krun.DiskFile, krun.InitrdFile} {
		if b.isMount(name) {
			return nil, fmt.Errorf("a volume is mounted over /%s, which belongs to the image", name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading image: %w", err)
	}
	initrd, err := readIn(root, krun.InitrdFile, firmware.MaxLibkrunInitrdBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return &image{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading image: %w", err)
	}
	i := &image{initrd: initrd}
	if err := kbs.UnmarshalStrict(config, &i.config); err != nil {
		return nil, fmt.Errorf("decoding /%s: %w", krun.TEEConfigFile, err)
	}
	return i, i.check(root)
}

// isMount says whether a mount hides name or one of its parents.
func (b *bundle) isMount(name string) bool { return slices.Contains(b.mounts, "/"+name) }

func (i *image) check(root *os.Root) error {
	if err := i.config.Validate(); err != nil {
		return fmt.Errorf("reading /%s: %w", krun.TEEConfigFile, err)
	}
	switch i.config.TEE {
	case kbs.Sample:
		return &refusal{errors.New("the image was built for the simulated TEE"), "run it with --runtime krun-sim"}
	case kbs.TDX:
		return &refusal{errors.New("the image was built for TDX, which crun cannot launch"), "build it with --tee snp"}
	}
	if err := firmware.CheckLibkrunInitrd(i.initrd); err != nil {
		return fmt.Errorf("reading /%s: %w", krun.InitrdFile, err)
	}
	info, err := root.Stat(krun.DiskFile)
	if err != nil {
		return fmt.Errorf("reading image: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return fmt.Errorf("/%s is not a disk image", krun.DiskFile)
	}
	return nil
}

func readIn(root *os.Root, name string, limit int64) ([]byte, error) {
	// Opening a FIFO would wait for its other end: look first.
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("/%s is not a regular file", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, limit)
}

func readRegular(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, expected a regular file of at most %d", f.Name(), info.Size(), limit)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return b, nil
}
