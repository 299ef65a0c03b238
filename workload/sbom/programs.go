package sbom

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/rpmdb"
	"github.com/ccrun/ccrun/workload/scratch"
)

// spooled copies r to where it can be read in any order.
func spooled(dir string, r io.Reader, use func(io.ReaderAt, int64) error) error {
	s, err := scratch.NewSpool(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	w := s.Writer()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return use(s, s.SizeBytes())
}

func parseRPM(dir string, r io.Reader) (list []softwarePackage, err error) {
	err = spooled(dir, r, func(at io.ReaderAt, size int64) error {
		return rpmdb.Read(at, size, func(p rpmdb.Package) error {
			s := softwarePackage{kind: "rpm", name: p.Name, version: p.Version + "-" + p.Release, arch: p.Arch}
			if p.HasEpoch {
				s.epoch = strconv.FormatUint(uint64(p.Epoch), 10)
			}
			if list = append(list, s); len(list) > maxPackages {
				return fmt.Errorf("more than %d packages", maxPackages)
			}
			return nil
		})
	})
	if err != nil {
		return nil, hint.With(fmt.Errorf("reading rpm's database: %w", err), "mend the image, or build without `--attach sbom`")
	}
	return list, nil
}

// parseGo lists the modules in a Go program. Other files have none; an error
// is about scratch space.
func parseGo(dir string, r io.Reader) (list []softwarePackage, err error) {
	var magic [4]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil || string(magic[:]) != "\x7fELF" {
		return nil, nil
	}
	var info *buildinfo.BuildInfo
	err = spooled(dir, io.MultiReader(bytes.NewReader(magic[:]), r), func(at io.ReaderAt, _ int64) (err error) {
		defer func() { // debug/elf may panic on files made to break it
			if p := recover(); p != nil {
				err = errors.New("malformed ELF file")
			}
		}()
		if info, err = buildinfo.Read(at); err != nil {
			info = nil
		}
		return nil
	})
	if err != nil || info == nil {
		return nil, err
	}
	add := func(module, version string) {
		if version == "(devel)" {
			version = ""
		}
		dir, name := path.Split(module)
		if name != "" && len(module) <= maxPackageField && len(version) <= maxPackageField {
			list = append(list, softwarePackage{kind: "golang", namespace: dir, name: name, version: version})
		}
	}
	add("stdlib", strings.TrimPrefix(info.GoVersion, "go"))
	add(info.Main.Path, info.Main.Version)
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		add(d.Path, d.Version)
	}
	return list, nil
}
