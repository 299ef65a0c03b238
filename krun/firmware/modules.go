package firmware

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/ccrun/ccrun/bounded"
)

// ModulesFile lists the modules to load, one path a line, in order. A file of
// that name and ImageList's ending lists those of one kind of image.
const ModulesFile = "/etc/ccrun/modules"

// ImageList lists the modules to load, after ModulesFile's, for an image with
// that file system, or that one of luks.Ciphers.
func ImageList(with string) string { return ModulesFile + "." + with }

// Modules names what to pack, without dependencies, which are added.
type Modules struct {
	Always []string
	// Images has what only images with a file system, or a cipher, take.
	Images map[string][]string
}

const (
	maxModules     = 128
	maxModuleBytes = 32 << 20
	// maxAliasesBytes bounds modules.alias; Debian's has 1.3 MiB.
	maxAliasesBytes = 16 << 20
)

// ModulesSegment is an uncompressed archive with kernel modules and their
// lists. Dependencies come from each module's own .modinfo section and
// are put in front of it. Names that the kernel has built in are
// left out; names that it does not know are an error. It is not compressed because
// unpacking gzip under emulation costs more than copying.
func ModulesSegment(moduleDir string, wanted Modules) ([]byte, error) {
	l := moduleLoader{files: map[string]string{}, builtin: map[string]bool{}, aliases: map[string]string{}, state: map[string]int{}, packed: map[string]needs{}}
	if err := l.index(moduleDir); err != nil {
		return nil, fmt.Errorf("reading kernel modules: %w", err)
	}
	l.out.directories("lib", "lib/modules", "etc", "etc/ccrun")
	if err := l.group(ModulesFile, wanted.Always); err != nil {
		return nil, err
	}
	always := l.state
	for _, with := range slices.Sorted(maps.Keys(wanted.Images)) {
		l.state = maps.Clone(always) // each list is whole
		if err := l.group(ImageList(with), wanted.Images[with]); err != nil {
			return nil, err
		}
	}
	return l.out.finish(), nil
}

// group packs the modules and, in file, the list of them.
func (l *moduleLoader) group(file string, wanted []string) error {
	l.list.Reset()
	for _, name := range wanted {
		if err := l.load(name); err != nil {
			return fmt.Errorf("packing kernel module %s: %w", name, err)
		}
	}
	l.out.add(node{name: strings.TrimPrefix(file, "/"), mode: typeRegular | 0o444, data: []byte(l.list.String())})
	return nil
}

type moduleLoader struct {
	files   map[string]string // module name -> path
	builtin map[string]bool
	aliases map[string]string // of modules.alias, those without wildcards
	state   map[string]int    // 1 while its dependencies load, 2 when done
	packed  map[string]needs  // modules in out, and what each depends on
	list    strings.Builder
	out     archive
}

// moduleName is how the kernel names a module file: dashes are underscores.
func moduleName(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

func (l *moduleLoader) index(dir string) error {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(filepath.Base(p), ".ko") {
			l.files[moduleName(p)] = p
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(l.files) == 0 {
		return fmt.Errorf("no kernel modules under %s", dir)
	}
	raw, err := bounded.Regular(filepath.Join(dir, "modules.builtin"), 4<<20)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		l.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return l.readAliases(filepath.Join(dir, "modules.alias"))
}

// readAliases reads what depmod writes. A package of modules may come without.
func (l *moduleLoader) readAliases(path string) error {
	raw, err := bounded.Regular(path, maxAliasesBytes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "alias" && !strings.ContainsAny(f[1], "*?[:") {
			l.aliases[moduleName(f[1])] = moduleName(f[2])
		}
	}
	return nil
}

// loadSoft loads what a module asks for by a name that may be an alias, as
// modprobe does: libcrc32c wants crc32c, which crc32c_generic is. What nobody has
// is left out.
func (l *moduleLoader) loadSoft(name string) error {
	name = moduleName(name)
	for _, candidate := range []string{name, l.aliases[name], name + "_generic"} {
		if _, ok := l.files[candidate]; !ok || l.state[candidate] == 1 {
			continue
		}
		return l.load(candidate)
	}
	return nil
}

func (l *moduleLoader) load(name string) error {
	name = moduleName(name)
	path, ok := l.files[name]
	switch {
	case l.state[name] == 2 || !ok && l.builtin[name]:
		return nil
	case l.state[name] == 1:
		return fmt.Errorf("module %s depends on itself", name)
	case !ok:
		return fmt.Errorf("module %s: %w", name, fs.ErrNotExist)
	case len(l.state) == maxModules:
		return fmt.Errorf("more than %d modules", maxModules)
	}
	l.state[name] = 1
	file := "lib/modules/" + name + ".ko"
	if err := l.pack(name, file, path); err != nil {
		return err
	}
	l.state[name] = 2
	l.list.WriteString("/" + file + "\n")
	return nil
}

// pack loads what a module depends on, and puts it into the archive, once.
func (l *moduleLoader) pack(name, file, path string) error {
	wants, packed := l.packed[name]
	var data []byte
	var err error
	if !packed {
		if data, err = readModule(path); err != nil {
			return err
		}
		if data, err = unsigned(data); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		if wants, err = moduleNeeds(data); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		l.packed[name] = wants
	}
	for _, d := range wants.soft {
		if err := l.loadSoft(d); err != nil {
			return err
		}
	}
	for _, d := range wants.hard {
		if err := l.load(d); err != nil {
			return err
		}
	}
	if !packed {
		l.out.add(node{name: file, mode: typeRegular | 0o444, data: data})
	}
	return nil
}

// readModule reads a module, unpacked by what its name ends in.
func readModule(path string) ([]byte, error) {
	raw, err := bounded.Regular(path, maxModuleBytes)
	if err != nil {
		return nil, err
	}
	var r io.Reader = bytes.NewReader(raw)
	switch filepath.Ext(path) {
	case ".ko":
		return raw, nil
	case ".xz":
		r, err = xz.NewReader(r)
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModuleBytes)); err == nil {
			defer z.Close()
			r = z
		}
	default:
		return nil, fmt.Errorf("%s: expected .ko, .ko.xz, .ko.gz or .ko.zst", path)
	}
	if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", path, err)
	}
	return bounded.Read(r, "unpacked "+path, maxModuleBytes)
}

// signatureMagic ends a signed module; before it is a struct module_signature of
// 12 bytes, of which the last four are the signature's length, big-endian
// (include/linux/module_signature.h).
const signatureMagic = "~Module signature appended~\n"

// unsigned is a module without its signature. The launch measurement covers
// every byte of it, and the kernel takes 12 million instructions to check an
// RSA signature: for all modules a quarter of a start.
func unsigned(b []byte) ([]byte, error) {
	const trailer = 12
	body, ok := bytes.CutSuffix(b, []byte(signatureMagic))
	if !ok {
		return b, nil
	}
	if len(body) < trailer {
		return nil, errors.New("module is cut short")
	}
	n := binary.BigEndian.Uint32(body[len(body)-4:])
	if body = body[:len(body)-trailer]; uint64(n) > uint64(len(body)) {
		return nil, fmt.Errorf("signature of %d bytes in a module of %d", n, len(b))
	}
	return body[:len(body)-int(n)], nil
}

// needs are the modules that must be loaded before one: by the symbols that it
// uses, and by what it asks for while it starts.
type needs struct{ hard, soft []string }

// moduleNeeds reads depends= of .modinfo, names separated by commas, and what
// stands behind "pre:" in each softdep=, names and words separated by spaces.
func moduleNeeds(ko []byte) (n needs, err error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return n, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return n, errors.New("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return n, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		name, value, _ := strings.Cut(field, "=")
		switch {
		case name == "depends" && value != "":
			n.hard = append(n.hard, strings.Split(value, ",")...)
		case name == "softdep":
			n.soft = append(n.soft, before(value)...)
		}
	}
	return n, nil
}

// before is the names behind "pre:".
func before(softdep string) (names []string) {
	pre := false
	for _, word := range strings.Fields(softdep) {
		switch {
		case strings.HasSuffix(word, ":"):
			pre = word == "pre:"
		case pre:
			names = append(names, word)
		}
	}
	return names
}
