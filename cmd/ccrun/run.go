package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/containers/podman/v5/pkg/specgenutil"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
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

In a systemd unit with Type=notify it reports what the guest waits for, and is ready
when the workload runs: "ccrun quadlet --service" writes such a unit.

Example:
   ccrun run --rm --network host localhost/hello-confidential`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "run in the background and print the container's ID"},
			&cli.BoolFlag{Name: "rm", Usage: "remove the container when it ends"},
			&cli.StringFlag{Name: "name", Usage: "container `NAME`"},
			&cli.BoolFlag{Name: "resume", Usage: "start container --name again, with what it wrote, if the same image and flags made it; else replace it"},
			&cli.UintFlag{Name: "stop-timeout", Usage: "`SECONDS` that the workload has after a signal to stop, before its VM is killed (default: as long as it takes; 10 for \"podman stop\")"},
			&cli.StringFlag{Name: "runtime", Value: "krun", Usage: "OCI `RUNTIME`: krun, krun-sim (simulation) or an absolute path"},
			&cli.StringFlag{Name: "network", Usage: "network `MODE`, as podman-run(1)"},
			&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "`HOST:CONTAINER` port, as podman-run(1)"},
			&cli.StringSliceFlag{Name: "annotation", Usage: "`NAME=VALUE`"},
			&cli.GenericFlag{Name: "secret", Value: &stringList{}, Usage: "ask for a resource of the key server, which the image's --secret-allow must take, `kbs:///REPO/TYPE/TAG,target=NAME|env=NAME`; may be repeated"},
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
	// Signals belong to the workload once it is started: a context that SIGTERM
	// cancels would tear the connection down instead of passing it on.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	ctx := context.WithoutCancel(c.Context)
	host := systemd(program.Log(c))
	if host.status("looking for the image "+spec.Image) || spec.Resume {
		spec.Annotations[krun.AnnounceAnnotation] = "1"
	}
	service, err := podman.Open(ctx, podman.Options{URL: c.String("url"), Runtime: c.String("runtime")})
	if err != nil {
		return 0, err
	}
	defer service.Close()
	create := func(ctx context.Context) (string, error) { return service.Create(ctx, *spec) }
	id, stopped, err := unlessStopped(ctx, create, signals)
	if stopped != 0 && id != "" && spec.Remove {
		err = service.Remove(ctx, id)
	}
	if stopped != 0 || err != nil {
		return stopped, err
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
	host.status("starting the machine")
	return service.RunAttached(ctx, id, podman.Attached{
		Streams: podman.Streams{Out: os.Stdout, Err: os.Stderr}, Signals: passedOn(signals, host),
		Stop: time.Duration(spec.StopSeconds) * time.Second,
		Says: func(text string) { host.status(text) }, Runs: host.runs,
	})
}

// unlessStopped makes a container, which a signal to stop ends: a pull may take
// long, and there is no workload yet to pass it to. stopped is the exit status of
// such a signal, or 0.
func unlessStopped(ctx context.Context, create func(context.Context) (string, error), signals <-chan os.Signal) (id string, stopped int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan bool)
	go func() {
		id, err = create(ctx)
		close(done)
	}()
	for {
		select {
		case <-done:
			if stopped != 0 {
				err = nil // it may have been made just now, all the same
			}
			return id, stopped, err
		case sig := <-signals:
			if sig == syscall.SIGTERM || sig == syscall.SIGINT {
				stopped = 128 + int(sig.(syscall.Signal))
				cancel()
			}
		}
	}
}

// portHint is what a published port looks like.
const portHint = "say HOST:CONTAINER, as in --publish 8080:80"

func containerFromFlags(c *cli.Context) (*podman.Container, error) {
	if err := face.Args(c, 1, -1, "IMAGE"); err != nil {
		return nil, err
	}
	if err := refuseUnmeasured(c); err != nil {
		return nil, err
	}
	ports, err := specgenutil.CreatePortBindings(c.StringSlice("publish"))
	if err != nil {
		return nil, hint.With(face.Usagef("--publish: %v", err), portHint)
	}
	if err := podman.CheckNetwork(c.String("network")); err != nil {
		return nil, face.Usagef("--network: %v", err)
	}
	annotations, err := pairs("annotation", c.StringSlice("annotation"))
	if err != nil {
		return nil, err
	}
	if err := askForSecrets(annotations, *c.Generic("secret").(*stringList)); err != nil {
		return nil, err
	}
	labels, err := pairs("label", c.StringSlice("label"))
	if err != nil {
		return nil, err
	}
	if c.Bool("resume") && (c.String("name") == "" || c.Bool("rm") || c.Bool("detach")) {
		return nil, face.Usagef("--resume needs --name, and goes with neither --rm nor --detach")
	}
	switch p := c.String("pull"); p {
	case "missing", "always", "never", "newer":
	default:
		return nil, face.Usagef("--pull %q: expected missing, always, never or newer", p)
	}
	return &podman.Container{
		Image: c.Args().First(), Name: c.String("name"), Pull: c.String("pull"),
		Network: c.String("network"), Ports: ports, Annotations: annotations, Labels: labels,
		Remove: c.Bool("rm"), StopSeconds: c.Uint("stop-timeout"), Resume: c.Bool("resume"),
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

// passedOn are the signals for the workload.
func passedOn(in <-chan os.Signal, host *supervisor) <-chan syscall.Signal {
	out := make(chan syscall.Signal)
	go func() {
		for s := range in {
			if s == syscall.SIGTERM {
				host.stopping()
			}
			out <- s.(syscall.Signal)
		}
	}()
	return out
}
