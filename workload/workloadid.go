package workload

import (
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"strings"
)

// newWorkloadID derives a workload id from the image's name.
func newWorkloadID(image string, rand io.Reader) (string, error) {
	var random [8]byte
	if _, err := io.ReadFull(rand, random[:]); err != nil {
		return "", fmt.Errorf("drawing workload id: %w", err)
	}
	return slug(image) + "-" + hex.EncodeToString(random[:]), nil
}

// slug is the last part of an image name, which has a transport, without tag
// or digest: something to recognise a workload by.
func slug(image string) string {
	transport, name, _ := strings.Cut(image, ":")
	if transport == "docker" || transport == "containers-storage" {
		name = name[strings.LastIndexByte(name, '/')+1:]
		name, _, _ = strings.Cut(name, "@")
		name, _, _ = strings.Cut(name, ":")
	} else { // PATH[:NAME]
		name, _, _ = strings.Cut(name, ":")
		name = strings.TrimSuffix(path.Base(name), ".tar")
	}
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, name)
	name = strings.Trim(name, ".-_")
	if name == "" {
		return "workload"
	}
	return name[:min(len(name), 64)]
}
