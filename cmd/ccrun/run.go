package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/containers/podman/v5/pkg/specgenutil"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/podman"
)

// exitPodman is podman-run(1)'s status for a failure of Podman or ccrun itself.
const exitPodman = 125

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a confidential workload image through Podman's API",
		ArgsUsage: "IMAGE",
		Description: `Refuses to start when the runtime would run the image as a plain container.
The exit status is the workload's (0 to 255, also where "podman run" can only see
0), or 77 if the server refused the key; 125, 126 and 127 are podman-run(1)'s.

Example:
   ccrun run --rm --network host localhost/hello-confidential`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "run in the background and print the container's ID"},
			&cli.BoolFlag{Name: "rm", Usage: "remove the container when it ends"},
			&cli.StringFlag{Name: "name", Usage: "container `NAME`"},
			&cli.StringFlag{Name: "runtime", Value: "krun", Usage: "OCI `RUNTIME`: krun, krun-sim (simulation) or an absolute path"},
			&cli.StringFlag{Name: "network", Usage: "network `MODE`, as podman-run(1)"},
			&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "`HOST:CONTAINER` port, as podman-run(1)"},
			&cli.StringSliceFlag{Name: "annotation", Usage: "`NAME=VALUE`"},
			&cli.StringSliceFlag{Name: "label", Usage: "`NAME=VALUE`"},
			&cli.StringFlag{Name: "cidfile", Usage: "write the container's ID to `FILE`, which must not exist"},
			&cli.StringFlag{Name: "pull", Value: "missing", Usage: "`POLICY`: missing, always, never or newer"},
			&cli.StringFlag{Name: "url", Usage: "`URL` of Podman's API (default: as Podman finds it, or a private service)"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "refused: the environment is measured"},
			&cli.StringSliceFlag{Name: "env-file", Usage: "refused: the environment is measured"},
			&cli.StringSliceFlag{Name: "volume", Aliases: []string{"v"}, Usage: "refused: the host must not lend files to the workload"},
		},
		Action: func(c *cli.Context) error {
			status, err := runWorkload(c)
			switch {
			case err != nil:
				return face.WithStatus(exitPodman, err)
			case status != 0:
				return face.Silent(status)
			}
			return nil
		},
		OnUsageError: func(c *cli.Context, err error, sub bool) error {
			return face.WithStatus(exitPodman, face.UsageError(c, err, sub))
		},
	}
}

// runWorkload returns the workload's exit status.
func runWorkload(c *cli.Context) (int, error) {
	spec, err := containerFromFlags(c)
	if err != nil {
		return 0, err
	}
	cid, err := openCIDFile(c.String("cidfile"))
	if err != nil {
		return 0, err
	}
	// Signals belong to the workload from here on: a context that SIGTERM
	// cancels would tear the connection down instead of passing it on.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	ctx := context.WithoutCancel(c.Context)
	service, err := podman.Open(ctx, podman.Options{URL: c.String("url"), Runtime: c.String("runtime")})
	if err != nil {
		return 0, err
	}
	defer service.Close()
	id, err := service.Create(ctx, *spec)
	if err != nil {
		return 0, err
	}
	if err := cid.write(id); err != nil {
		return 0, err
	}
	if c.Bool("detach") {
		if err := service.Start(ctx, id); err != nil {
			return 0, fmt.Errorf("starting the container: %w", err)
		}
		_, err := fmt.Fprintln(c.App.Writer, id)
		return 0, err
	}
	return service.RunAttached(ctx, id, podman.Streams{Out: os.Stdout, Err: os.Stderr}, asSyscall(signals))
}

func containerFromFlags(c *cli.Context) (*podman.Container, error) {
	if err := face.Args(c, 1, -1, "IMAGE"); err != nil {
		return nil, err
	}
	if err := refuseUnmeasured(c); err != nil {
		return nil, err
	}
	ports, err := specgenutil.CreatePortBindings(c.StringSlice("publish"))
	if err != nil {
		return nil, face.Usagef("--publish: %v", err)
	}
	if err := podman.CheckNetwork(c.String("network")); err != nil {
		return nil, face.Usagef("--network: %v", err)
	}
	annotations, err := pairs("annotation", c.StringSlice("annotation"))
	if err != nil {
		return nil, err
	}
	labels, err := pairs("label", c.StringSlice("label"))
	if err != nil {
		return nil, err
	}
	switch p := c.String("pull"); p {
	case "missing", "always", "never", "newer":
	default:
		return nil, face.Usagef("--pull %q: expected missing, always, never or newer", p)
	}
	return &podman.Container{
		Image: c.Args().First(), Name: c.String("name"), Pull: c.String("pull"),
		Network: c.String("network"), Ports: ports, Annotations: annotations, Labels: labels,
		Remove: c.Bool("rm"),
	}, nil
}

// refuseUnmeasured refuses what the host would have to be trusted for.
func refuseUnmeasured(c *cli.Context) error {
	what, next := "", "`ccrun workload config set ID` has the key server set it, if the image was built with %s; else put it into the image and run `ccrun build` again"
	switch {
	case c.NArg() > 1:
		what, next = "arguments after IMAGE", fmt.Sprintf(next, "--args-allow")
	case c.IsSet("env") || c.IsSet("env-file"):
		what, next = "--env", fmt.Sprintf(next, "--env-allow NAME")
	case c.IsSet("volume"):
		what, next = "--volume", "`ccrun build --volume NAME:PATH` gives the workload an encrypted volume of its own, `ccrun volume create` its file; what it only reads, put into the image"
	default:
		return nil
	}
	return hint.With(face.Usagef("%s cannot be given at launch: the host is not trusted, and process, environment and disk of this image are measured", what), "%s", next)
}

func pairs(flag string, list []string) (map[string]string, error) {
	m := make(map[string]string, len(list))
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, face.Usagef("--%s %q: expected NAME=VALUE", flag, s)
		}
		m[name] = value
	}
	return m, nil
}

// cidFile is created before the container, as podman does, so that a second
// run with the same file starts nothing.
type cidFile struct{ f *os.File }

func openCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, hint.With(face.WithStatus(exitPodman, fmt.Errorf("--cidfile %s exists", path)), "remove it when its container is gone")
	}
	if err != nil {
		return nil, fmt.Errorf("creating cidfile: %w", err)
	}
	return &cidFile{f}, nil
}

func (c *cidFile) write(id string) error {
	if c.f == nil {
		return nil
	}
	_, err := c.f.WriteString(id)
	return errors.Join(err, c.f.Close())
}

func asSyscall(in <-chan os.Signal) <-chan syscall.Signal {
	out := make(chan syscall.Signal)
	go func() {
		for s := range in {
			out <- s.(syscall.Signal)
		}
	}()
	return out
}
