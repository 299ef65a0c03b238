package firmware

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/bounded"
)

// Sample is what WriteDir makes firmware of: the simulator's or, with OVMF, that
// of QEMU's machines with a TEE.
type Sample struct {
	Kernel    string // path of a bzImage
	ModuleDir string // e.g. /usr/lib/modules/VERSION; empty for no modules
	Modules   Modules
	Cmdline   string
	OVMF      string // path of the firmware's file; empty for qemu-direct
	CPU       string // with OVMF for SNP: QEMU's model
}

// Names of the files that WriteDir writes.
const (
	kernelFile  = "vmlinuz"
	modulesFile = "modules.cpio"
	ovmfFile    = "OVMF.fd"
)

// part is a file of a firmware directory.
type part struct {
	name string
	data []byte
}

// WriteDir creates a directory with firmware and returns what Load reads from it.
// The same inputs give the same bytes. With OVMF, ConfigFile has the checksum of
// each file.
func WriteDir(dir string, s Sample) (*Bundle, error) {
	c := Config{Version: 1, Kind: KindQEMUDirect, Kernel: kernelFile, Cmdline: s.Cmdline, CPU: s.CPU}
	parts, err := s.parts(&c)
	if err != nil {
		return nil, err
	}
	if c.Kind == KindOVMF {
		c.SHA256 = map[string]string{}
		for _, p := range parts {
			c.SHA256[p.name] = fmt.Sprintf("%x", sha256.Sum256(p.data))
		}
	}
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	parts = append(parts, part{ConfigFile, config}) // last: it names the others
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("writing firmware: %w", err)
	}
	for _, p := range parts {
		if err := WriteFile(filepath.Join(dir, p.name), p.data, 0o644); err != nil {
			return nil, err
		}
	}
	return Load(dir)
}

// parts reads what goes into the directory, and says in c what it is.
func (s *Sample) parts(c *Config) ([]part, error) {
	kernel, err := bounded.Regular(s.Kernel, MaxKernelBytes)
	if err != nil {
		return nil, fmt.Errorf("reading kernel: %w", err)
	}
	list := []part{{kernelFile, kernel}}
	if s.ModuleDir != "" {
		modules, err := ModulesSegment(s.ModuleDir, s.Modules)
		if err != nil {
			return nil, err
		}
		c.Initrd = modulesFile
		list = append(list, part{modulesFile, modules})
	}
	if s.OVMF == "" {
		return list, nil
	}
	image, err := bounded.Regular(s.OVMF, MaxOVMFBytes)
	if err != nil {
		return nil, fmt.Errorf("reading OVMF: %w", err)
	}
	c.Kind, c.OVMF = KindOVMF, ovmfFile
	return append(list, part{ovmfFile, image}), nil
}
