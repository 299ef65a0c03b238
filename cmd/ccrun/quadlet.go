package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containers/podman/v5/pkg/specgenutil"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/podman"
)

func quadletCommand() *cli.Command {
	return &cli.Command{
		Name:      "quadlet",
		Usage:     "print a systemd unit that runs a workload image at boot: Quadlet's, or a service",
		ArgsUsage: "IMAGE",
		Description: `Example:
   ccrun quadlet --publish 8443:8443 registry.example/shop/fraud:1.2 >/etc/containers/systemd/fraud.container
   systemctl daemon-reload && systemctl start fraud

   ccrun quadlet --service registry.example/shop/fraud:1.2 >/etc/systemd/system/fraud.service
   systemctl daemon-reload && systemctl enable --now fraud

Both wait for a key server as long as it takes, and start the workload again when it
ends. Under krun, Podman and Quadlet's unit see status 0 however the VM ended, also when
the server refused its key (the journal's last line is then "ccrun: exit status 77"),
cannot see when it is ready, and lose what the workload wrote at each restart. With
--service the unit calls "ccrun run", which sees all that: it is active when the workload
runs, says in its status what it waits for, ends for good at a refusal, and keeps the
container. It works with any Podman; Quadlet's needs 4.8.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "service", Usage: "a service of \"ccrun run\" in place of a .container unit"},
			&cli.BoolFlag{Name: "user", Usage: "for a user's systemd and Podman, without root"},
			&cli.StringFlag{Name: "name", Usage: "container and service `NAME` (default: from IMAGE)"},
			&cli.StringFlag{Name: "runtime", Value: "krun", Usage: "OCI `RUNTIME`"},
			&cli.StringFlag{Name: "network", Usage: "`NETWORK` as in podman-systemd.unit(5)"},
			&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "`HOST:CONTAINER` port"},
			&cli.StringFlag{Name: "pull", Usage: "`POLICY`: missing (default), always, never or newer"},
			&cli.StringFlag{Name: "restart", Usage: "systemd's Restart= (default: on-failure, and never after 77; always for a .container unit under krun)"},
			&cli.IntFlag{Name: "stop-timeout", Value: 60, Usage: "`SECONDS` that the workload has to stop"},
			&cli.IntFlag{Name: "systemd", Usage: "`VERSION` of systemd that is to read the unit (default: this machine's); from 254 on restarts slow down"},
		},
		Action: printUnit,
	}
}

func printUnit(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "IMAGE"); err != nil {
		return err
	}
	if _, err := specgenutil.CreatePortBindings(c.StringSlice("publish")); err != nil {
		return hint.With(face.Usagef("--publish: %v", err), portHint)
	}
	unit := podman.Unit{
		Image: c.Args().First(), Name: c.String("name"), Runtime: c.String("runtime"),
		Network: c.String("network"), Publish: c.StringSlice("publish"),
		Pull: c.String("pull"), Restart: c.String("restart"), User: c.Bool("user"),
		StopSeconds: c.Int("stop-timeout"), Systemd: c.Int("systemd"),
	}
	if !c.IsSet("systemd") {
		unit.Systemd = systemdHere(c)
	}
	if unit.StopSeconds == 0 {
		return face.Usagef("--stop-timeout 0: expected at least 1 second, in which the guest closes its disk")
	}
	render := unit.Render
	if c.Bool("service") {
		unit.Ccrun, unit.Podman = programPath(), podmanPath()
		render = unit.RenderService
	}
	text, err := render()
	if err != nil {
		return face.WithStatus(face.Misused, err)
	}
	_, err = fmt.Fprint(c.App.Writer, text)
	return err
}

// systemdHere is the version of this machine's systemd, 0 without one.
func systemdHere(c *cli.Context) int {
	out, err := exec.CommandContext(c.Context, "systemctl", "--version").Output()
	if err != nil {
		return 0
	}
	return podman.ParseSystemdVersion(string(out))
}

// programPath is where a unit finds this program, podmanPath where Podman.
func programPath() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return "/usr/bin/ccrun"
}

func podmanPath() string {
	path, err := exec.LookPath("podman")
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "/usr/bin/podman"
	}
	return path
}
