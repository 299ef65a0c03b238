package main

import (
	"errors"
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

func writeFile(path string, content []byte, total int64) (n int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	for n < total && err == nil {
		var w int
		w, err = f.Write(content[:min(int64(len(content)), total-n)])
		n += int64(w)
	}
	return n, errors.Join(err, f.Sync(), f.Close())
}
