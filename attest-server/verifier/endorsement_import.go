package verifier

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// Outcome is what became of one item of an import.
type Outcome struct {
	Name        string       `json:"name"`
	Result      string       `json:"result"` // added, known (or older than what is kept), refused
	Reason      string       `json:"reason,omitempty"`
	Endorsement *Endorsement `json:"endorsement,omitempty"`
}

// Results of an import.
const (
	Added   = "added"
	Known   = "known"
	Refused = "refused"
)

// Import takes in what lies at from: a file, a directory or a tar archive
// (gzip or not) of DER or PEM certificates and CRLs and of collateral. Each
// item has its Outcome; the error is of reading and writing alone.
func (c *Cache) Import(from string) ([]Outcome, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	var all []Outcome
	add := func(name string, content []byte) error {
		o, err := c.ImportBytes(name, content)
		all = append(all, o...)
		return err
	}
	if info.IsDir() {
		err = walkSmall(os.DirFS(from), add)
		return all, err
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBundleSize+1))
	if err != nil {
		return nil, err
	}
	return all, errors.Join(add(info.Name(), b), err)
}

// ImportBytes is Import of one file's content.
func (c *Cache) ImportBytes(name string, content []byte) ([]Outcome, error) {
	var all []Outcome
	for _, i := range split(name, content) {
		o := Outcome{Name: i.name, Result: Refused}
		e, added, err := (*Endorsement)(nil), false, i.err
		if err == nil {
			e, added, err = c.Add(i.content)
		}
		o.Endorsement = e
		switch {
		case err != nil && e != nil: // it was good: keeping it failed
			return all, err
		case err != nil:
			o.Reason = err.Error()
		case added:
			o.Result = Added
		default:
			o.Result = Known
		}
		all = append(all, o)
	}
	return all, nil
}

// part is one DER structure or JSON document out of a file.
type part struct {
	name    string
	content []byte
	err     error
}

// split takes a file apart, by its content.
func split(name string, content []byte) []part {
	switch {
	case len(content) > maxBundleSize:
		return []part{{name: name, err: fmt.Errorf("more than %d bytes", maxBundleSize)}}
	case content == nil:
		return []part{{name: name, err: fmt.Errorf("no regular file of at most %d bytes", maxBundleFile)}}
	case len(content) > 2 && content[0] == 0x1f && content[1] == 0x8b:
		return splitGzip(name, content)
	case len(content) > 262 && string(content[257:262]) == "ustar":
		return splitTar(name, bytes.NewReader(content))
	}
	return splitFile(name, content)
}

var pemMark = []byte("-----BEGIN ")

// splitFile is split for what is no archive. Collateral has PEM inside.
func splitFile(name string, content []byte) []part {
	if trimmed := bytes.TrimSpace(content); bytes.HasPrefix(trimmed, []byte("{")) || !bytes.Contains(content, pemMark) {
		return []part{{name: name, content: content}}
	}
	return splitPEM(name, content)
}

func splitPEM(name string, content []byte) []part {
	var parts []part
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		content = rest
		parts = append(parts, part{name: fmt.Sprintf("%s[%d]", name, len(parts)), content: block.Bytes})
	}
	if bytes.Contains(content, pemMark) {
		parts = append(parts, part{name: name, err: errors.New("a damaged PEM block")})
	}
	return parts
}

func splitGzip(name string, content []byte) []part {
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return []part{{name: name, err: err}}
	}
	return splitTar(name, io.LimitReader(z, maxBundleSize))
}

// splitTar reads the regular files of an archive; nested archives are refused,
// since nothing in them would be bounded.
func splitTar(name string, r io.Reader) []part {
	var parts []part
	t := tar.NewReader(r)
	for range maxBundleFiles {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			return append(parts, part{name: name, err: fmt.Errorf("reading the archive: %w", err)})
		}
		inner := name + ":" + h.Name
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if h.Typeflag != tar.TypeReg || h.Size > maxBundleFile {
			parts = append(parts, part{name: inner, err: fmt.Errorf("no regular file of at most %d bytes", maxBundleFile)})
			continue
		}
		b, err := io.ReadAll(t)
		if err != nil {
			return append(parts, part{name: inner, err: fmt.Errorf("reading the archive: %w", err)})
		}
		parts = append(parts, splitFile(inner, b)...)
	}
	return append(parts, part{name: name, err: fmt.Errorf("more than %d files", maxBundleFiles)})
}

// newPrefix is that of files not wholly written yet.
const newPrefix = ".new-"

// walkSmall calls each with every file of fsys, content nil for those that are
// too large or no files.
func walkSmall(fsys fs.FS, each func(name string, content []byte) error) error {
	files, total := 0, int64(0)
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if name != "." && (errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(path.Base(name), newPrefix)) {
			return nil // another process is at work
		}
		if err != nil || d.IsDir() {
			return err
		}
		if files++; files > maxBundleFiles {
			return fmt.Errorf("more than %d files", maxBundleFiles)
		}
		content, err := readSmall(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if total += int64(len(content)); total > maxBundleSize {
			return fmt.Errorf("more than %d bytes", maxBundleSize)
		}
		return each(name, content)
	})
}

// Export writes everything as a tar archive, the same bytes for the same
// content whoever exports it and when.
func (c *Cache) Export(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, e := range c.List() {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.fileName(), Size: int64(e.Size), Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
		if _, err := t.Write(e.content); err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
	}
	return t.Close()
}
