package wrapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
)

const maxConfigBytes = 64 << 10

// image is what a workload image holds for us.
type image struct {
	config krun.TEEConfig
	initrd []byte // nil for an image that boots libkrunfw's own initrd
	hints  krun.Hints
}

// readImage reads the image's files; nil means that it asks for no TEE. The
// image's author is not trusted by this host: os.Root keeps every link within
// the root file system, and sizes are bounded.
func readImage(s *crun.Spec) (*image, error) {
	root, err := os.OpenRoot(s.RootFS)
	if err != nil {
		return nil, fmt.Errorf("opening root file system: %w", err)
	}
	defer root.Close()
	config, err := bounded.RegularFS(root.FS(), krun.TEEConfigFile, maxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) && !isMount(s, krun.TEEConfigFile) {
		return nil, nil
	}
	for _, name := range []string{krun.TEEConfigFile, krun.DiskFile, krun.InitrdFile, krun.HintsFile} {
		if isMount(s, name) {
			return nil, fmt.Errorf("a volume is mounted over /%s, which belongs to the image", name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading image: %w", err)
	}
	initrd, err := bounded.RegularFS(root.FS(), krun.InitrdFile, firmware.MaxLibkrunInitrdBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return classicImage(config), nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading image: %w", err)
	}
	i := &image{initrd: initrd}
	if err := kbs.UnmarshalStrict(config, &i.config); err != nil {
		return nil, fmt.Errorf("decoding /%s: %w", krun.TEEConfigFile, err)
	}
	if err := i.readHints(root); err != nil {
		return nil, err
	}
	return i, i.check(root)
}

// readHints reads what older images do not have.
func (i *image) readHints(root *os.Root) error {
	b, err := bounded.RegularFS(root.FS(), krun.HintsFile, krun.MaxHintsBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading image: %w", err)
	}
	h, err := krun.DecodeHints(b)
	if err != nil {
		return fmt.Errorf("reading image: %w", err)
	}
	i.hints = *h
	return nil
}

// classicImage is one of another tool's. Of its configuration, which libkrun
// checks, the memory matters here.
func classicImage(config []byte) *image {
	var size struct {
		MemoryMiB uint `json:"ram_mib"`
	}
	if err := kbs.UnmarshalOpen(config, &size); err != nil || size.MemoryMiB > krun.MaxMemoryMiB {
		size.MemoryMiB = 0
	}
	return &image{config: krun.TEEConfig{MemoryMiB: size.MemoryMiB}}
}

// isMount says whether a mount hides name or one of its parents.
func isMount(s *crun.Spec, name string) bool {
	return slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return path.Clean("/"+m.Destination) == "/"+name })
}

func (i *image) check(root *os.Root) error {
	if err := i.config.Validate(); err != nil {
		return fmt.Errorf("reading /%s: %w", krun.TEEConfigFile, err)
	}
	if err := i.checkMachine(); err != nil {
		return err
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

// checkMachine wants the image to be for a machine that this runtime makes.
func (i *image) checkMachine() error {
	switch {
	case i.config.TEE == kbs.Sample:
		return hint.With(errors.New("the image was built for the simulated TEE"), "run it with --runtime krun-sim")
	case i.hints.Profile != "":
		return i.checkProfile()
	case i.config.TEE == kbs.TDX:
		return hint.With(errors.New("the image was built for TDX, which crun cannot launch"), "build it with --vmm qemu, or with --tee snp")
	}
	if err := firmware.CheckLibkrunInitrd(i.initrd); err != nil {
		return fmt.Errorf("reading /%s: %w", krun.InitrdFile, err)
	}
	return nil
}

// checkProfile wants profile and TEE to name one machine.
func (i *image) checkProfile() error {
	want := map[kbs.TEE]string{kbs.SNP: krun.HintQEMUSNP, kbs.TDX: krun.HintQEMUTDX}[i.config.TEE]
	if i.hints.Profile != want {
		return fmt.Errorf("/%s is for profile %s, but /%s for TEE %s", krun.HintsFile, i.hints.Profile, krun.TEEConfigFile, i.config.TEE)
	}
	return nil
}
