package endorsements

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

// split takes a file apart, by its content.
func split(name string, content []byte) []part {
	switch {
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
	if parts, is := splitPlatforms(name, content); is {
		return parts
	}
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
