package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/podman"
)

func quadletCommand() *cli.Command {
	return &cli.Command{
		Name:      "quadlet",
		Usage:     "print a Quadlet .container unit that runs a workload image at boot",
		ArgsUsage: "IMAGE",
		Description: `Example:
   ccrun quadlet --publish 8443:8443 registry.example/shop/fraud:1.2 >/etc/containers/systemd/fraud.container
   systemctl daemon-reload && systemctl start fraud

Under krun, Podman and systemd see status 0 however the VM ended, also when the
server refused its key (the journal's last line is then "ccrun: exit status 77"),
and cannot see when it is ready. The unit therefore starts it again after every
end. For a job that runs once use "ccrun run", which carries the status.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "container and service `NAME` (default: from IMAGE)"},
			&cli.StringFlag{Name: "runtime", Value: "krun", Usage: "OCI `RUNTIME`"},
			&cli.StringFlag{Name: "network", Usage: "`NETWORK` as in podman-systemd.unit(5)"},
			&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "`HOST:CONTAINER` port"},
			&cli.StringFlag{Name: "pull", Usage: "`POLICY`: missing (default), always, never or newer"},
			&cli.StringFlag{Name: "restart", Usage: "systemd's Restart= (default: always; with krun-sim on-failure, and never after 77)"},
		},
		Action: func(c *cli.Context) error {
			if err := face.Args(c, 1, 1, "IMAGE"); err != nil {
				return err
			}
			text, err := podman.Unit{
				Image: c.Args().First(), Name: c.String("name"), Runtime: c.String("runtime"),
				Network: c.String("network"), Publish: c.StringSlice("publish"),
				Pull: c.String("pull"), Restart: c.String("restart"),
			}.Render()
			if err != nil {
				return face.WithStatus(face.Misused, err)
			}
			_, err = fmt.Fprint(c.App.Writer, text)
			return err
		},
	}
}
