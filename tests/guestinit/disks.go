package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// findDisk returns the path of the virtio disk with a serial number.
func findDisk(serial string) (string, error) {
	files, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == serial {
			return "/dev/" + filepath.Base(filepath.Dir(f)), nil
		}
	}
	return "", fmt.Errorf("none of %d disks has the serial number %s", len(files), serial)
}
