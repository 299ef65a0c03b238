package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containers/image/v5/types"
	"github.com/docker/go-units"
	"github.com/sirupsen/logrus"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload"
)

func buildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "turn an OCI image into an encrypted, measured workload image",
		ArgsUsage: "SOURCE DEST",
		Description: `SOURCE and DEST take containers/image transports: containers-storage:,
docker://, oci:, oci-archive:, docker-archive:, dir:. Without one, SOURCE is
looked for in local storage and then in the registries of registries.conf, and
DEST is a name in local storage.

The workload is registered with the server before DEST gets its name: a build
that is killed leaves at worst a registration without an image.

Examples:
   ccrun build --attest-url https://kbs.example:8443 --attest-ca ca.pem \
       --token-file token docker://docker.io/library/nginx:1.28 localhost/nginx-cw
   ccrun build --attest-url https://kbs.example:8443 --attest-ca ca.pem \
       --no-register --record app.record oci:app oci:app-cw`,
		Flags:  append(buildFlags(), imageFlags()...),
		Action: runBuild,
	}
}

func buildFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "tee", Value: string(kbs.SNP), Usage: "`TEE` to run on: snp, tdx, or sample (simulation: protects nothing)"},
		&cli.UintFlag{Name: "cpus", Value: 1, Usage: "`NUMBER` of vCPUs, 1 to 8; measured"},
		&cli.StringFlag{Name: "memory", Usage: "memory, in MiB or with a unit; measured (default: 2048 `MIB`, 512 for sample)"},
		&cli.StringFlag{Name: "firmware", EnvVars: []string{"CCRUN_FIRMWARE"}, Usage: "libkrunfw `FILE`, or directory with firmware.json (default: the installed library)"},
		&cli.StringFlag{Name: "agent", Usage: "guest agent `FILE` (default: ccrun-init beside ccrun, or in ../libexec/ccrun)"},
		&cli.StringSliceFlag{Name: "attest-url", Usage: "`URL` of the attestation server, as the guest reaches it; may be repeated, tried in order"},
		&cli.StringFlag{Name: "attest-ca", Usage: "PEM `FILE` with the server's or its CA's certificates: the only keys the guest will trust"},
		&cli.StringSliceFlag{Name: "pin", Usage: "SHA-256 of a server's or CA's public key (SubjectPublicKeyInfo), `HEX`; may be repeated"},
		&cli.StringFlag{Name: "workload-id", Usage: "`ID` of the workload (default: from DEST's name, with a random part)"},
		&cli.StringFlag{Name: "fs", Value: "ext4", Usage: "file `SYSTEM`: ext4"},
		&cli.StringFlag{Name: "size", Usage: "`SIZE` of the file system (default: the content and room to write)"},
		&cli.BoolFlag{Name: "integrity", Value: true, Usage: "authenticate every sector; false only for guest kernels without dm-integrity"},
		&cli.GenericFlag{Name: "env-allow", Value: &stringList{}, Usage: "environment variable that the host may set, `NAME[=REGEX]`; may be repeated"},
		&cli.BoolFlag{Name: "args-allow", Usage: "let the host give the workload arguments"},
		&cli.StringFlag{Name: "logs", Value: "host", Usage: "`WHERE` the workload's output goes: host or none"},
		&cli.StringFlag{Name: "passphrase-file", Usage: "take the disk's passphrase from `FILE` (default: 256 random bits)"},
		&cli.BoolFlag{Name: "no-register", Usage: "do not register; needs --record"},
		&cli.StringFlag{Name: "record", Usage: "write the registration to `FILE`; with --no-register it holds the disk key"},
		&cli.StringFlag{Name: "iidfile", Usage: "write the image's ID to `FILE`"},
		&cli.StringFlag{Name: "digestfile", Usage: "write the digest of the image's manifest to `FILE`"},
		formatFlag(),
	}, serverFlags()...)
}

// imageFlags are those of every command that reads or writes images.
func imageFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "authfile", EnvVars: []string{"REGISTRY_AUTH_FILE"}, Usage: "registry credentials `FILE`, as containers-auth.json(5)"},
		&cli.StringFlag{Name: "cert-dir", Usage: "`DIR` with certificates for registries"},
		&cli.BoolFlag{Name: "tls-verify", Value: true, Usage: "require HTTPS and verified certificates of registries"},
		&cli.StringFlag{Name: "signature-policy", Usage: "`FILE` instead of policy.json, as containers-policy.json(5)"},
		&cli.StringFlag{Name: "registries-conf", EnvVars: []string{"CONTAINERS_REGISTRIES_CONF"}, Usage: "`FILE` instead of registries.conf"},
	}
}

// systemContext also makes the containers libraries log as we do.
func systemContext(c *cli.Context) *types.SystemContext {
	logrus.SetLevel(logrus.WarnLevel)
	switch log := slog.Default(); {
	case log.Enabled(c.Context, slog.LevelDebug):
		logrus.SetLevel(logrus.DebugLevel)
	case log.Enabled(c.Context, slog.LevelInfo):
		logrus.SetLevel(logrus.InfoLevel)
	case !log.Enabled(c.Context, slog.LevelWarn):
		logrus.SetLevel(logrus.ErrorLevel)
	}
	sys := &types.SystemContext{
		AuthFilePath:             c.String("authfile"),
		DockerCertPath:           c.String("cert-dir"),
		SignaturePolicyPath:      c.String("signature-policy"),
		SystemRegistriesConfPath: c.String("registries-conf"),
		DockerRegistryUserAgent:  "ccrun/" + version(),
	}
	if c.IsSet("tls-verify") {
		sys.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!c.Bool("tls-verify"))
		sys.OCIInsecureSkipTLSVerify = !c.Bool("tls-verify")
	}
	return sys
}

func runBuild(c *cli.Context) error {
	if err := args(c, 2, 2, "SOURCE DEST"); err != nil {
		return err
	}
	o, err := buildOptions(c)
	if err != nil {
		return err
	}
	defer o.Passphrase.Wipe()
	bar := newProgress(c)
	o.Progress = bar.show
	res, err := workload.Build(c.Context, *o)
	bar.clear()
	if err != nil {
		return buildError(c, err)
	}
	for flag, text := range map[string]string{"iidfile": res.ImageID, "digestfile": res.Digest} {
		if path := c.String(flag); path != "" {
			if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
				return fmt.Errorf("image is built; writing --%s: %w", flag, err)
			}
		}
	}
	return printFormatted(c, res, printBuild)
}

func printBuild(w io.Writer, v any) error {
	r := v.(*workload.Result)
	fmt.Fprintf(w, "image:       %s\ndigest:      %s\nworkload:    %s\n", r.Image, r.Digest, r.Registration.WorkloadID)
	for _, m := range r.Registration.ReferenceValues.Measurements {
		fmt.Fprintf(w, "measurement: %s (%s, %d vCPU, %d MiB)\n", m.LaunchDigest, m.Profile, m.CPUs, m.MemoryMiB)
	}
	switch {
	case r.Registered && r.Record != "":
		fmt.Fprintf(w, "registered:  yes\nrecord:      %s\n", r.Record)
	case r.Registered:
		fmt.Fprintf(w, "registered:  yes\n")
	default:
		fmt.Fprintf(w, "registered:  no; record with the disk key: %s\n", r.Record)
	}
	return nil
}

func buildOptions(c *cli.Context) (*workload.Options, error) {
	o := &workload.Options{
		Source: c.Args().Get(0), Destination: c.Args().Get(1),
		TEE: kbs.TEE(c.String("tee")), WorkloadID: c.String("workload-id"),
		Policy: krun.LaunchPolicy{
			EnvAllow: *c.Generic("env-allow").(*stringList), ArgsAllow: c.Bool("args-allow"), Logs: c.String("logs"),
		},
		Servers:     krun.Servers{URLs: c.StringSlice("attest-url"), PinnedKeys: c.StringSlice("pin")},
		Filesystem:  c.String("fs"),
		NoIntegrity: !c.Bool("integrity"),
		RecordPath:  c.String("record"),
		System:      systemContext(c),
		Now:         sourceDate,
		Warn:        func(s string) { slog.Warn(s) },
	}
	if c.Uint("cpus") > 255 {
		return nil, usage("--cpus %d: expected 1 to 8", c.Uint("cpus"))
	}
	o.CPUs = uint8(c.Uint("cpus"))
	for _, set := range []func(*cli.Context, *workload.Options) error{setSizes, setServers, setMachine, setPassphrase, setRegistrar} {
		if err := set(c, o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// sourceDate is now, or what SOURCE_DATE_EPOCH says.
func sourceDate() time.Time {
	if n, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		return time.Unix(n, 0)
	}
	return time.Now()
}

func setSizes(c *cli.Context, o *workload.Options) error {
	memory := c.String("memory")
	switch {
	case memory == "" && o.TEE == kbs.Sample:
		memory = "512"
	case memory == "":
		memory = "2048"
	}
	n, err := parseMemoryMiB(memory)
	if err != nil {
		return err
	}
	o.MemoryMiB = n
	if s := c.String("size"); s != "" {
		size, err := units.RAMInBytes(s)
		if err != nil {
			return usage("--size %q: expected a number with a unit, as in 2g or 2GiB", s)
		}
		o.SizeBytes = (size + 4095) / 4096 * 4096
	}
	return nil
}

// parseMemoryMiB reads "512", "2g" or "2GiB"; without a unit it is MiB.
func parseMemoryMiB(s string) (uint, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return uint(n), nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil || n <= 0 || n%(1<<20) != 0 {
		return 0, usage("--memory %q: expected whole MiB, as in 512, 2g or 2GiB", s)
	}
	return uint(n >> 20), nil
}

func setServers(c *cli.Context, o *workload.Options) error {
	path := c.String("attest-ca")
	if path == "" {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading --attest-ca: %w", err)
	}
	pins, err := kbs.PinsFromPEM(pem)
	if err != nil {
		return fmt.Errorf("reading --attest-ca %s: %w", path, err)
	}
	o.Servers.PinnedKeys = append(o.Servers.PinnedKeys, pins...)
	return nil
}

// setMachine finds firmware and guest agent.
func setMachine(c *cli.Context, o *workload.Options) error {
	o.Firmware = c.String("firmware")
	if o.Firmware == "" {
		if o.TEE == kbs.Sample {
			return fail(exitUsage, errors.New("--tee sample needs --firmware DIR"), "`ccrun-sim firmware` makes one")
		}
		path, err := firmware.FindInstalled()
		if err != nil {
			return fail(exitNotCapable, err, "install libkrunfw built with SEV=1, or name it with --firmware")
		}
		o.Firmware = path
	}
	path, err := findAgent(c.String("agent"))
	if err != nil {
		return err
	}
	if o.Agent, err = os.ReadFile(path); err != nil {
		return fmt.Errorf("reading guest agent: %w", err)
	}
	return nil
}

// findAgent looks beside this program, as in a build tree, and where `make
// install` puts it.
func findAgent(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("looking for ccrun-init: %w", err)
	}
	dir := filepath.Dir(self)
	for _, p := range []string{filepath.Join(dir, "ccrun-init"), filepath.Join(dir, "../libexec/ccrun/ccrun-init")} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fail(exitFailure, fmt.Errorf("no guest agent ccrun-init in %s or %s", dir, filepath.Join(dir, "../libexec/ccrun")),
		"`make build` makes it; name it with --agent")
}

func setPassphrase(c *cli.Context, o *workload.Options) error {
	path := c.String("passphrase-file")
	if path == "" {
		return nil
	}
	b, err := readSecretFile(path)
	if err != nil {
		return fmt.Errorf("reading --passphrase-file: %w", err)
	}
	if b.Len() == 0 {
		return usage("--passphrase-file %s is empty", path)
	}
	o.Passphrase = b
	return nil
}

func setRegistrar(c *cli.Context, o *workload.Options) error {
	if c.Bool("no-register") {
		return nil
	}
	server := c.String("server")
	if server == "" && len(o.Servers.URLs) > 0 {
		server = o.Servers.URLs[0]
	}
	ca := c.String("ca")
	if ca == "" {
		ca = c.String("attest-ca")
	}
	client, err := adminClient(server, ca, c.String("token-file"))
	if err != nil {
		return err
	}
	o.Registrar = client
	return nil
}

// buildError gives workload's errors their exit codes, and starts over inside
// the user namespace when local storage needs it.
func buildError(c *cli.Context, err error) error {
	switch {
	case errors.Is(err, workload.ErrNeedUserNamespace):
		return reexecUnshared(err)
	case errors.Is(err, workload.ErrUsage):
		return fail(exitUsage, err, hintOr(err, "see `ccrun "+c.Command.Name+" --help`"))
	case errors.Is(err, workload.ErrNotCapable):
		return fail(exitNotCapable, err, hintOr(err, ""))
	case errors.Is(err, context.Canceled):
		return fail(exitFailure, errors.New("interrupted: nothing was kept"), "")
	}
	return err
}

func hintOr(err error, fallback string) string {
	if h := hintOf(err); h != "" {
		return h
	}
	return fallback
}

// reexecUnshared runs this very command under `podman unshare`, which maps
// the user's subordinate ids: an unprivileged user's images belong to those.
func reexecUnshared(cause error) error {
	podman, err := exec.LookPath("podman")
	if err != nil {
		return fail(exitNotCapable, fmt.Errorf("%w, and podman is not installed", cause), "install podman, or use oci:DIR or docker:// instead of local storage")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append([]string{"podman", "unshare", self}, os.Args[1:]...)
	return fmt.Errorf("running podman unshare: %w", syscall.Exec(podman, argv, os.Environ()))
}

// readSecretFile reads a token or passphrase, without the line end that
// editors leave.
func readSecretFile(path string) (secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer f.Close()
	const limit = 4096
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(b) > limit {
		return secret.Bytes{}, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	return secret.New(b), nil
}

// stringList is a repeated flag whose values may hold commas.
type stringList []string

// Set implements flag.Value.
func (l *stringList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// String implements flag.Value.
func (l *stringList) String() string { return strings.Join(*l, " ") }
