// Command initrd2disk unpacks an initrd into an ext4 disk and writes that to
// standard output, for a kernel without initrd.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: initrd2disk INITRD >DISK")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "initrd2disk:", err)
		os.Exit(1)
	}
}

func run(initrd string, out io.Writer) (err error) {
	work, err := os.MkdirTemp("", "initrd2disk")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	root, disk := filepath.Join(work, "root"), filepath.Join(work, "disk")
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "newroot"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := unpack(initrd, root); err != nil {
		return err
	}
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(root, 0o755), os.Truncate(disk, 48<<20)); err != nil {
		return err
	}
	if err := command(nil, "mkfs.ext4", "-q", "-d", root, disk); err != nil {
		return err
	}
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

// unpack extracts each gzip member, a cpio archive of its own, and skips the
// zeros between them, as the kernel does.
func unpack(initrd, root string) error {
	b, err := os.ReadFile(initrd)
	if err != nil {
		return err
	}
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		head, err := r.Peek(1)
		if err != nil {
			return nil
		}
		if head[0] == 0 {
			_, _ = r.Discard(1)
			continue
		}
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		z.Multistream(false)
		if err := command(z, "cpio", "-idum", "--quiet", "-D", root); err != nil {
			return err
		}
	}
}

func command(stdin io.Reader, name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Stdin, c.Stderr = stdin, os.Stderr
	c.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
