package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/tests/diskcase"
)

// stack is one way of turning a disk into a decrypted block device.
type stack interface {
	open(readOnly bool) (path string, err error)
	close() error
}

const keyFile = "/run/passphrase"

// ours is what the guest agent does.
type ours struct {
	geometry     luks.Geometry
	vk           *luks.VolumeKey
	device, name string // of the disk, for the decrypted one
}

// newOurs unlocks the keyslot. The disk is opened as c says; only of a disk
// that cryptsetup made is the header's own geometry believed.
func newOurs(c *diskcase.Case, device string) (*ours, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	h, err := luks.ReadHeader(f, size)
	if err != nil {
		return nil, err
	}
	if c.Format {
		if c.Geometry, err = h.Geometry(); err != nil {
			return nil, err
		}
	}
	vk, err := h.Unlock(secret.New([]byte(c.Passphrase)))
	if err != nil {
		return nil, err
	}
	if c.Expect == diskcase.WrongKeyEIO {
		if vk, err = luks.NewVolumeKey(bytes.NewReader(make([]byte, c.Geometry.VolumeKeyBytes)), c.Geometry); err != nil {
			return nil, err
		}
	}
	return &ours{c.Geometry, vk, device, c.Serial}, nil
}

func (o *ours) open(readOnly bool) (string, error) {
	path, err := luks.Activate(o.geometry, o.vk, luks.Place{Device: o.device}, o.name, readOnly)
	if err != nil {
		return "", err
	}
	// The name is taken: a second one must fail, and leave the first alone,
	// which every check that follows would notice.
	if _, err := luks.Activate(o.geometry, o.vk, luks.Place{Device: o.device}, o.name, readOnly); err == nil {
		return "", errors.New("a second Activate under the same name succeeds")
	}
	return path, nil
}

func (o *ours) close() error { return luks.Deactivate(o.name) }

// theirs is cryptsetup.
type theirs struct{ device, name string }

func (t *theirs) open(readOnly bool) (string, error) {
	args := []string{"open", "--type", "luks2", "--key-file", keyFile}
	if readOnly {
		args = append(args, "--readonly")
	}
	if err := cryptsetup(append(args, t.device, t.name)...); err != nil {
		return "", err
	}
	return "/dev/mapper/" + t.name, nil
}

func (t *theirs) close() error { return cryptsetup("close", t.name) }

// cryptsetup runs Debian's. The guest has no udev, which libdevmapper would
// wait for, and no path where the dynamic loader looks for libraries.
func cryptsetup(args ...string) error {
	dir := diskcase.CryptsetupDir
	cmd := exec.Command(filepath.Join(dir, "ld.so"), append([]string{"--library-path", filepath.Join(dir, "lib"),
		filepath.Join(dir, "cryptsetup"), "--batch-mode"}, args...)...)
	cmd.Env = []string{"DM_DISABLE_UDEV=1", "PATH=/"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cryptsetup %s: %w: %s", args[0], err, out)
	}
	return nil
}

// format has cryptsetup make an authenticated disk and fills it through the
// device that cryptsetup opens. c gets the sums of what there will be.
func format(c *diskcase.Case, device string) (err error) {
	if err := cryptsetup("luksFormat", "--type", "luks2", "--cipher", "aes-xts-plain64", "--key-size", "512",
		"--integrity", "hmac-sha256", "--integrity-no-wipe", "--sector-size", strconv.Itoa(c.Geometry.SectorBytes),
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile, device); err != nil {
		return err
	}
	t := &theirs{device, c.Serial}
	path, err := t.open(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	content := diskcase.Content(n)
	c.Before = diskcase.Sum(content)
	c.After = diskcase.Sum(diskcase.Written(content, diskcase.WritesFor(n)))
	if _, err := f.WriteAt(content, 0); err != nil {
		return fmt.Errorf("filling: %w", err)
	}
	return f.Sync()
}
