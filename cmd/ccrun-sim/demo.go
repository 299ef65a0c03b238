package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/examples"
)

// demoCommand runs the demonstrations in examples, which it carries with it.
func demoCommand() *cli.Command {
	memory := &cli.Command{
		Name:  "memory",
		Usage: "look for a canary in the memory of a container, of a VM without a TEE, and say what SNP would change",
		Description: "The first two are found: a VM alone keeps nothing from its host. The third takes SEV-SNP hardware, and\n" +
			"says so. Needs what `ccrun-sim demo` needs, and root, as a host's administrator has it.\n\nExample:\n   ccrun-sim demo memory",
		Flags:  demoFlags(),
		Action: func(c *cli.Context) error { return runDemo(c, "memory.sh") },
	}
	return &cli.Command{
		Name:        "demo",
		Usage:       "the main job end to end in the simulated TEE, then four attacks that must fail",
		Description: "Needs podman, qemu and curl, and CCRUN_SIM_FIRMWARE (see `ccrun-sim firmware`).\n\nExamples:\n   make demo\n   ccrun-sim demo memory",
		Flags:       demoFlags(),
		Subcommands: []*cli.Command{memory, searchCommand()},
		Action:      func(c *cli.Context) error { return runDemo(c, "demo.sh") },
	}
}

func demoFlags() []cli.Flag {
	self, _ := os.Executable()
	return []cli.Flag{
		&cli.StringFlag{Name: "bin", Value: filepath.Dir(self), Usage: "`DIR` with ccrun, ccrun-init and ccrun-sim"},
		&cli.StringFlag{Name: "cache", Value: filepath.Join(os.TempDir(), "ccrun-demo-cache"), Usage: "`DIR` for downloaded packages"},
	}
}

func runDemo(c *cli.Context, script string) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ccrun-demo-files-")
	if err != nil {
		return fmt.Errorf("unpacking the demo: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := unpack(dir); err != nil {
		return fmt.Errorf("unpacking the demo: %w", err)
	}
	cmd := exec.Command("bash", filepath.Join(dir, script), c.String("bin"), c.String("cache"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("the demo failed (%w)", err)
	}
	return err
}

func unpack(dir string) error {
	return fs.WalkDir(examples.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		b, err := examples.Files.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o755)
	})
}
