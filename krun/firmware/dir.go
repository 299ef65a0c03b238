package firmware

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

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
	Kind    string `json:"kind"`    // "qemu-direct", "ovmf" or "libkrun"
	Kernel  string `json:"kernel"`  // bzImage (QEMU's machines); vmlinux or its flat image (libkrun)
	// Initrd is put in front of the workload's (QEMU's machines: kernel modules),
	// or is the library's own (libkrun). May be empty.
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline,omitempty"` // QEMU's machines only
	OVMF    string `json:"ovmf,omitempty"`    // ovmf only: the firmware's file
	CPU     string `json:"cpu,omitempty"`     // ovmf only, for SNP: QEMU's model
	QBoot   string `json:"qboot,omitempty"`   // libkrun only
	// KernelLoad is the guest physical address of a flat kernel image, libkrun
	// only; a vmlinux says it itself.
	KernelLoad uint64 `json:"kernel_load,omitempty"`
	// SHA256 is of each file named above, 64 hex digits. With it, another file than
	// the one that the directory was made of is refused; nil: any is taken.
	SHA256 map[string]string `json:"sha256,omitempty"`
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
	d := &dirReader{root: root, sums: c.SHA256}
	b, err := d.bundle(&c)
	return b, errors.Join(err, d.unread(err))
}

// dirReader reads the files of a directory, each against its checksum.
type dirReader struct {
	root *os.Root
	sums map[string]string // nil: none are given
	read []string
}

func (d *dirReader) bundle(c *Config) (*Bundle, error) {
	kernel, err := d.file(c.Kernel, MaxKernelBytes)
	if err != nil {
		return nil, err
	}
	initrd, err := d.optional(c.Initrd, MaxInitrdBytes)
	if err != nil {
		return nil, err
	}
	if c.Kind != KindLibkrun {
		if c.QBoot != "" {
			return nil, fmt.Errorf("firmware kind %q takes no qboot", c.Kind)
		}
		b := &Bundle{Kind: c.Kind, Kernel: kernel, InitrdBase: padTo(initrd, 4), Cmdline: c.Cmdline, KernelLoad: c.KernelLoad, CPU: c.CPU}
		if b.OVMF, err = d.ovmf(c.OVMF); err != nil {
			return nil, err
		}
		return b, b.seal()
	}
	if c.OVMF != "" || c.CPU != "" {
		return nil, errors.New("libkrun takes no OVMF and no CPU model")
	}
	qboot, err := d.file(c.QBoot, QBootBytes)
	if err != nil {
		return nil, err
	}
	b, err := FromParts(qboot, kernel, c.KernelLoad, initrd)
	if err == nil && c.Cmdline != "" {
		err = errors.New("libkrun takes no command line: its kernel has one compiled in")
	}
	return b, err
}

func (d *dirReader) file(name string, limit int64) ([]byte, error) {
	b, err := readIn(d.root, name, limit)
	if err != nil || d.sums == nil {
		return b, err
	}
	d.read = append(d.read, name)
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != d.sums[name] {
		return nil, fmt.Errorf("%s has SHA-256 %s, expected %q: it is not the file that this firmware was made of, or is cut short", name, got, d.sums[name])
	}
	return b, nil
}

func (d *dirReader) optional(name string, limit int64) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	return d.file(name, limit)
}

func (d *dirReader) ovmf(name string) (*OVMF, error) {
	image, err := d.optional(name, MaxOVMFBytes)
	if err != nil || image == nil {
		return nil, err
	}
	o, err := ParseOVMF(image)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return o, nil
}

// unread refuses a checksum of a file that nothing boots, after all went well.
func (d *dirReader) unread(err error) error {
	if err != nil {
		return nil
	}
	for name := range d.sums {
		if !slices.Contains(d.read, name) {
			return fmt.Errorf("a checksum is given for %.80q, which is none of the firmware's files", name)
		}
	}
	return nil
}

func readIn(root *os.Root, name string, limit int64) ([]byte, error) {
	return bounded.RegularFS(root.FS(), path.Clean(name), limit)
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
