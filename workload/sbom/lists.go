package sbom

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// parseDpkg reads deb822 paragraphs; packages that are not installed are left
// out. A status.d file has no Status.
func parseDpkg(r io.Reader) ([]softwarePackage, error) {
	var list []softwarePackage
	err := paragraphs(r, ": ", func(f map[string]string) {
		if s, ok := f["Status"]; f["Package"] != "" && (!ok || strings.HasSuffix(s, " installed")) {
			list = append(list, softwarePackage{kind: "deb", name: f["Package"], version: f["Version"], arch: f["Architecture"]})
		}
	})
	return list, err
}

// parseAPK reads apk's database: P:, V: and A: lines.
func parseAPK(r io.Reader) ([]softwarePackage, error) {
	var list []softwarePackage
	err := paragraphs(r, ":", func(f map[string]string) {
		if f["P"] != "" {
			list = append(list, softwarePackage{kind: "apk", name: f["P"], version: f["V"], arch: f["A"]})
		}
	})
	return list, err
}

// paragraphs calls add for each group of lines between empty ones. Only the
// first line of a field is kept, and of a field that is repeated the first.
func paragraphs(r io.Reader, separator string, add func(map[string]string)) error {
	b := bufio.NewReaderSize(r, 64<<10)
	fields, n := map[string]string{}, 0
	for {
		line, err := b.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // a long line: its start is enough
			_, err = b.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return err
		}
		end := err == io.EOF
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 && len(fields) > 0 {
			add(fields)
			fields = map[string]string{}
			if n++; n > maxPackages {
				return fmt.Errorf("more than %d packages", maxPackages)
			}
		}
		if name, value, ok := strings.Cut(string(line), separator); ok && line[0] != ' ' && line[0] != '\t' && len(fields) < 256 {
			if _, dup := fields[name]; !dup && len(name) <= maxPackageField {
				fields[name] = value[:min(len(value), maxPackageField)]
			}
		}
		if end {
			if len(fields) > 0 {
				add(fields)
			}
			return nil
		}
	}
}

// parseOSRelease returns ID.
func parseOSRelease(r io.Reader) (id string, err error) {
	err = paragraphs(r, "=", func(f map[string]string) {
		if v := strings.Trim(f["ID"], `"'`); v != "" && id == "" {
			id = v
		}
	})
	return id, err
}

// parsePython reads the METADATA or PKG-INFO that an installer leaves.
func parsePython(r io.Reader) ([]softwarePackage, error) {
	var list []softwarePackage
	err := paragraphs(r, ": ", func(f map[string]string) {
		if f["Name"] != "" && f["Metadata-Version"] != "" && len(list) == 0 {
			name := strings.ReplaceAll(strings.ToLower(f["Name"]), "_", "-") // as purl wants it
			list = append(list, softwarePackage{kind: "pypi", name: name, version: f["Version"]})
		}
	})
	return list, err
}

// parseNPM reads an installed package.json.
func parseNPM(r io.Reader) ([]softwarePackage, error) {
	var p struct {
		Name, Version string
	}
	if err := json.NewDecoder(r).Decode(&p); err != nil {
		return nil, err
	}
	scope, name, ok := strings.Cut(p.Name, "/")
	if !ok {
		scope, name = "", p.Name
	}
	if name == "" || len(p.Name) > maxPackageField || len(p.Version) > maxPackageField {
		return nil, nil
	}
	return []softwarePackage{{kind: "npm", namespace: scope, name: name, version: p.Version}}, nil
}
