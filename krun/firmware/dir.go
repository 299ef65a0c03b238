package firmware

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
)

// ConfigFile is what makes a directory a firmware directory.
const ConfigFile = "firmware.json"

const maxConfigBytes = 16 << 10

// Config is the content of ConfigFile. File names are relative to the
// directory and may not lead out of it.
type Config struct {
	Version int    `json:"version"` // 1
	Kind    string `json:"kind"`    // "qemu-direct" or "libkrun"
	Kernel  string `json:"kernel"`  // bzImage (qemu-direct); vmlinux or its flat image (libkrun)
	// Initrd is put in front of the workload's (qemu-direct: kernel modules),
	// or is the library's own (libkrun). May be empty.
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline,omitempty"` // qemu-direct only
	QBoot   string `json:"qboot,omitempty"`   // libkrun only
	// KernelLoad is the guest physical address of a flat kernel image, libkrun
	// only; a vmlinux says it itself.
	KernelLoad uint64 `json:"kernel_load,omitempty"`
}

func loadDir(dir string) (*Bundle, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	raw, err := readIn(root, ConfigFile, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	var c Config
	if err := kbs.UnmarshalStrict(raw, &c); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", ConfigFile, err)
	}
	if c.Version != 1 {
		return nil, fmt.Errorf("%s has version %d, expected 1", ConfigFile, c.Version)
	}
	kernel, err := readIn(root, c.Kernel, MaxKernelBytes)
	if err != nil {
		return nil, err
	}
	initrd, err := readOptional(root, c.Initrd, MaxInitrdBytes)
	if err != nil {
		return nil, err
	}
	if c.Kind != KindLibkrun {
		b := &Bundle{Kind: c.Kind, Kernel: kernel, InitrdBase: padTo(initrd, 4), Cmdline: c.Cmdline, KernelLoad: c.KernelLoad}
		if c.QBoot != "" {
			return nil, fmt.Errorf("firmware kind %q takes no qboot", c.Kind)
		}
		return b, b.seal()
	}
	qboot, err := readIn(root, c.QBoot, QBootBytes)
	if err != nil {
		return nil, err
	}
	b, err := FromParts(qboot, kernel, c.KernelLoad, initrd)
	if err == nil && c.Cmdline != "" {
		err = errors.New("libkrun takes no command line: its kernel has one compiled in")
	}
	return b, err
}

func readIn(root *os.Root, name string, limit int64) ([]byte, error) {
	return bounded.RegularFS(root.FS(), path.Clean(name), limit)
}

func readOptional(root *os.Root, name string, limit int64) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	return readIn(root, name, limit)
}

// FromParts makes libkrun firmware of loose files as bin2cbundle.py bundles
// them: an ELF kernel is flattened, every part padded to BundleAlign. load is
// the address of a flat kernel; an ELF kernel has its own and load must be 0.
// An empty initrd is allowed: a workload brings its own.
func FromParts(qboot, kernel []byte, load uint64, initrd []byte) (*Bundle, error) {
	b := &Bundle{Kind: KindLibkrun, QBoot: padTo(qboot, BundleAlign), KernelLoad: load, Initrd: padTo(initrd, BundleAlign)}
	if bytes.HasPrefix(kernel, []byte(elf.ELFMAG)) {
		if load != 0 {
			return nil, errors.New("a load address was given for an ELF kernel, which has its own")
		}
		if err := b.flatten(kernel); err != nil {
			return nil, fmt.Errorf("reading ELF kernel: %w", err)
		}
	} else {
		b.Kernel = kernel
	}
	b.Kernel = padTo(b.Kernel, BundleAlign)
	return b, b.seal()
}

// flatten lays out the PT_LOAD segments of vmlinux by physical address. The
// load address is the first one's virtual address without its upper bits, as
// bin2cbundle.py has it.
func (b *Bundle) flatten(vmlinux []byte) error {
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return err
	}
	first := true
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if first {
			b.KernelLoad, b.KernelEntry, first = p.Vaddr&0xfffffff, f.Entry, false
		}
		data, err := within(vmlinux, p.Off, p.Filesz)
		if err != nil {
			return err
		}
		at := p.Paddr - b.KernelLoad
		if at < uint64(len(b.Kernel)) || at > MaxKernelBytes || at+p.Filesz > MaxKernelBytes {
			return fmt.Errorf("segment at physical address %#x does not follow the one before within %d bytes", p.Paddr, MaxKernelBytes)
		}
		b.Kernel = append(b.Kernel, make([]byte, int(at)-len(b.Kernel))...)
		b.Kernel = append(b.Kernel, data...)
	}
	if first {
		return errors.New("no PT_LOAD segment")
	}
	return nil
}

// Sample is what WriteDir makes firmware for the simulator from.
type Sample struct {
	Kernel    string // path of a bzImage
	ModuleDir string // e.g. /usr/lib/modules/VERSION; empty for no modules
	Modules   Modules
	Cmdline   string
}

// WriteDir creates a qemu-direct firmware directory and returns what Load
// reads from it.
func WriteDir(dir string, s Sample) (*Bundle, error) {
	kernel, err := bounded.Regular(s.Kernel, MaxKernelBytes)
	if err != nil {
		return nil, fmt.Errorf("reading kernel: %w", err)
	}
	c := Config{Version: 1, Kind: KindQEMUDirect, Kernel: "vmlinuz", Cmdline: s.Cmdline}
	type file struct {
		name string
		data []byte
	}
	files := []file{{c.Kernel, kernel}}
	if s.ModuleDir != "" {
		c.Initrd = "modules.cpio"
		modules, err := ModulesSegment(s.ModuleDir, s.Modules)
		if err != nil {
			return nil, err
		}
		files = append(files, file{c.Initrd, modules})
	}
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	files = append(files, file{ConfigFile, config}) // last: it names the others
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("writing firmware: %w", err)
	}
	for _, f := range files {
		if err := WriteFile(filepath.Join(dir, f.name), f.data, 0o644); err != nil {
			return nil, err
		}
	}
	return Load(dir)
}
