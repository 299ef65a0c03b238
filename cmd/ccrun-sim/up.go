package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func upDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "`DIR` for all of it (default: ccrun-sim in ~/.local/state)"}
}

func upCommand() *cli.Command {
	return &cli.Command{
		Name:  "up",
		Usage: "start all that workloads of your own need without a TEE, and print the environment for them",
		Description: "Makes a simulated platform, firmware of Debian's kernel, and a server that trusts them, starts\n" +
			"the server on this machine's loopback, and prints what a shell needs to know of it. What is\n" +
			"there already is kept: after a restart of the machine `up` goes on. " + notice + ".\n\n" +
			"Example:\n   eval \"$(ccrun-sim up)\"\n   ccrun build --tee sample localhost/app localhost/app-cw\n" +
			"   podman run --rm --runtime krun-sim --network host localhost/app-cw",
		Flags: []cli.Flag{
			upDirFlag(),
			&cli.StringFlag{Name: "kernel", Usage: "bzImage `FILE` to boot (default: Debian's cloud kernel, which is downloaded, not installed)"},
			&cli.StringFlag{Name: "modules", Usage: "`DIR` of that kernel's modules"},
			&cli.UintFlag{Name: "port", Value: 8743, Usage: "`PORT` of the server on 127.0.0.1"},
		},
		Action: up,
	}
}

func downCommand() *cli.Command {
	return &cli.Command{
		Name:  "down",
		Usage: "end what `ccrun-sim up` started, and remove all that it made",
		Description: "Removes the containers of runtime krun-sim, ends the server, and removes its directory, the keys of\n" +
			"all workloads in it. Images stay, and never start again.\n\nExample:\n   ccrun-sim down",
		Flags:  []cli.Flag{upDirFlag()},
		Action: down,
	}
}

func up(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	if c.IsSet("kernel") != c.IsSet("modules") {
		return face.Usagef("--kernel and --modules belong together: modules are of one kernel")
	}
	s, err := newSite(c)
	if err != nil {
		return err
	}
	if err := s.make(c); err != nil {
		return err
	}
	if err := s.start(c); err != nil {
		return err
	}
	env, err := s.environment(c.Context)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(c.App.Writer, env); err != nil {
		return err
	}
	program.Note(c, "the server answers at https://127.0.0.1:%d, to guests at %s; `eval \"$(ccrun-sim up)\"` sets a shell up, `ccrun-sim down` ends all of it", s.port, s.guestURL)
	return nil
}

func down(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	dir, err := siteDir(c)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, siteFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = hint.With(fmt.Errorf("%s is not what `ccrun-sim up` made: it has no %s", dir, siteFile), "name its directory with --dir")
		}
		return err
	}
	s := site{dir: dir}
	if err := s.removeContainers(c); err != nil {
		return err
	}
	if err := s.stop(c.Context); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	program.Note(c, "removed %s; workload images that were built for it are left, and never start again: `podman rmi`. "+
		"Shells that it set up name what is gone: close them", dir)
	return nil
}
