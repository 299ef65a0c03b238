package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/containers/image/v5/types"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload"
	"github.com/ccrun/ccrun/workload/localstore"
	"github.com/ccrun/ccrun/workload/registry"
)

// imageFlags are those of every command that reads or writes images.
func imageFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "authfile", EnvVars: []string{"REGISTRY_AUTH_FILE"}, Usage: "registry credentials `FILE`, as containers-auth.json(5)"},
		&cli.StringFlag{Name: "cert-dir", Usage: "`DIR` with certificates for registries"},
		&cli.BoolFlag{Name: "tls-verify", Value: true, Usage: "require HTTPS and verified certificates of registries"},
		&cli.StringFlag{Name: "signature-policy", Usage: "`FILE` instead of policy.json, as containers-policy.json(5)"},
		&cli.StringFlag{Name: "registries-conf", EnvVars: []string{"CONTAINERS_REGISTRIES_CONF"}, Usage: "`FILE` instead of registries.conf"},
		&cli.StringFlag{Name: "registries.d", Usage: "`DIR` instead of registries.d, as containers-registries.d(5)"},
		&cli.UintFlag{Name: "retry", Value: 3, Usage: "`NUMBER` of times to try again when a registry is overloaded, breaks off or does not answer"},
		&cli.DurationFlag{Name: "retry-delay", DefaultText: "1s, doubled each time; what the registry asks for with 429", Usage: "`TIME` between these"},
	}
}

// imageContext is for what reads or writes images.
func imageContext(c *cli.Context) context.Context {
	p := registry.Patience{Retries: int(min(c.Uint("retry"), 1000)), Delay: c.Duration("retry-delay")}
	if p.Retries == 0 {
		p.Retries = -1
	}
	return registry.WithPatience(c.Context, p)
}

// systemContext says how the containers libraries reach images.
func systemContext(c *cli.Context) *types.SystemContext {
	sys := &types.SystemContext{
		AuthFilePath:             c.String("authfile"),
		DockerCertPath:           c.String("cert-dir"),
		SignaturePolicyPath:      c.String("signature-policy"),
		SystemRegistriesConfPath: c.String("registries-conf"),
		RegistriesDirPath:        c.String("registries.d"),
		DockerRegistryUserAgent:  "ccrun/" + face.Version(),
	}
	if c.IsSet("tls-verify") {
		sys.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!c.Bool("tls-verify"))
		sys.OCIInsecureSkipTLSVerify = !c.Bool("tls-verify")
	}
	return sys
}

func writeIDs(c *cli.Context, imageID, digest string) error {
	for flag, text := range map[string]string{"iidfile": imageID, "digestfile": digest} {
		if path := c.String(flag); path != "" {
			if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
				return fmt.Errorf("image is built; writing --%s: %w", flag, err)
			}
		}
	}
	return nil
}

// buildError gives workload's errors their exit codes, and starts over inside
// the user namespace when local storage needs it.
func buildError(err error) error {
	switch {
	case errors.Is(err, localstore.ErrNeedUserNamespace):
		return reexecUnshared(err)
	case errors.Is(err, workload.ErrNotCapable):
		return face.WithStatus(face.NotCapable, err)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted: nothing was kept")
	}
	return err
}

// reexecUnshared runs this very command under `podman unshare`, which maps
// the user's subordinate ids: an unprivileged user's images belong to those.
func reexecUnshared(cause error) error {
	podman, err := exec.LookPath("podman")
	if err != nil {
		return hint.With(face.WithStatus(face.NotCapable, fmt.Errorf("%w, and podman is not installed", cause)), "install podman, or use oci:DIR or docker:// instead of local storage")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append([]string{"podman", "unshare", self}, os.Args[1:]...)
	return fmt.Errorf("running podman unshare: %w", syscall.Exec(podman, argv, os.Environ()))
}
