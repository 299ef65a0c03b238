package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/sim"
)

//go:embed kernel.sh
var kernelScript []byte

// What `up` makes in its directory. siteFile says that it is such a directory.
const (
	siteFile   = "up.json"
	platform   = "platform" // the sample root
	firmwareIn = "firmware"
	anchorDir  = "anchor" // the server's data, and its first token
	binDir     = "bin"    // krun-sim, by the name that Podman starts it by
)

// site is all that `up` makes, in one directory.
type site struct {
	dir, self string
	port      uint
	guestURL  string // the server, as guests with --network host reach it
}

// siteRecord is siteFile's content: what images depend on, so that it stays.
type siteRecord struct {
	Version int  `json:"version"` // 1
	Port    uint `json:"port"`
}

func siteDir(c *cli.Context) (string, error) {
	if dir := c.String("dir"); dir != "" {
		return filepath.Abs(dir)
	}
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", hint.With(fmt.Errorf("looking for the home directory: %w", err), "name a directory with --dir")
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "ccrun-sim"), nil
}

// newSite finds or claims the directory.
func newSite(c *cli.Context) (*site, error) {
	dir, err := siteDir(c)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir, self: self, port: c.Uint("port")}
	if s.port == 0 || s.port > 65535 {
		return nil, face.Usagef("--port %d, expected 1 to 65535", s.port)
	}
	raw, err := bounded.File(s.path(siteFile), 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return s, s.claim()
	}
	var r siteRecord
	if err == nil {
		err = kbs.UnmarshalStrict(raw, &r)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", s.path(siteFile), err)
	case r.Version != 1 || r.Port == 0:
		return nil, fmt.Errorf("%s has version %d, expected 1", s.path(siteFile), r.Version)
	case c.IsSet("port") && r.Port != s.port:
		return nil, face.Usagef("--port %d: %s has its server at port %d, which its images name; `ccrun-sim down` begins anew", s.port, dir, r.Port)
	}
	s.port = r.Port
	return s, nil
}

// claim makes the directory, which must be empty: `down` removes it.
func (s *site) claim() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	found, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return hint.With(fmt.Errorf("%s is not empty and not what `ccrun-sim up` made", s.dir), "name a new directory with --dir")
	}
	record, err := kbs.Canonical(siteRecord{1, s.port})
	if err != nil {
		return err
	}
	return os.WriteFile(s.path(siteFile), record, 0o600)
}

func (s *site) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// make makes what is not there yet. Each part is there whole or not at all.
func (s *site) make(c *cli.Context) error {
	if err := os.MkdirAll(s.path(binDir), 0o755); err != nil {
		return err
	}
	runtime := s.path(binDir, sim.RuntimeName)
	if err := os.Remove(runtime); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(s.self, runtime); err != nil {
		return err
	}
	if _, err := sample.OpenAttester(s.path(platform)); err != nil {
		if err := s.run(c, s.self, "init", "--sample-root", s.path(platform)); err != nil {
			return err
		}
	}
	if err := s.makeFirmware(c); err != nil {
		return err
	}
	b, err := firmware.Load(s.path(firmwareIn))
	if err != nil {
		return err
	}
	gateway, err := gatewayOf(b.Cmdline)
	if err != nil {
		return err
	}
	s.guestURL = fmt.Sprintf("https://%s:%d", gateway, s.port)
	return s.makeAnchor(c, gateway)
}

// gatewayOf is where QEMU puts its host's loopback in the guest's network: the
// second address of ccrun.net.
func gatewayOf(cmdline string) (string, error) {
	for word := range strings.FieldsSeq(cmdline) {
		if net, ok := strings.CutPrefix(word, "ccrun.net="); ok {
			if parts := strings.Split(net, ","); len(parts) >= 2 && parts[1] != "" {
				return parts[1], nil
			}
		}
	}
	return "", errors.New("the firmware's command line names no network for the guest (ccrun.net=ADDRESS,GATEWAY)")
}

func (s *site) makeFirmware(c *cli.Context) error {
	if _, err := os.Lstat(s.path(firmwareIn, firmware.ConfigFile)); err == nil {
		return nil
	}
	kernel, modules := c.String("kernel"), c.String("modules")
	if kernel == "" {
		script := s.path("kernel.sh")
		if err := os.WriteFile(script, kernelScript, 0o700); err != nil {
			return err
		}
		if err := s.run(c, "bash", script, s.path("kernel")); err != nil {
			return err
		}
		kernel, modules = s.path("kernel", "vmlinuz"), s.path("kernel", "modules")
	}
	return s.run(c, s.self, "firmware", "--kernel", kernel, "--modules", modules, "--output", s.path(firmwareIn))
}

// makeAnchor makes the server's data and first token under another name, so
// that one that was killed half way is not taken for a server.
func (s *site) makeAnchor(c *cli.Context, gateway string) error {
	if _, err := os.Lstat(s.path(anchorDir)); err == nil {
		return nil
	}
	half := s.path(".anchor")
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	if err := os.Mkdir(half, 0o700); err != nil {
		return err
	}
	err := s.run(c, s.self, "attest-server", "init", "--data", filepath.Join(half, "data"),
		"--name", "127.0.0.1", "--name", gateway, "--token-out", filepath.Join(half, "token"))
	if err != nil {
		return err
	}
	return os.Rename(half, s.path(anchorDir))
}

// run runs a step, whose output is not the environment that `up` prints.
func (s *site) run(c *cli.Context, name string, args ...string) error {
	program.Note(c, "running %s %s", filepath.Base(name), args[0])
	cmd := exec.CommandContext(c.Context, name, args...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s %s: %w\n%s", filepath.Base(name), args[0], err, strings.TrimSpace(said.String()))
	}
	return nil
}
