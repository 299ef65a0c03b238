package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show what is in a workload image or disk, and what is registered",
		ArgsUsage: "IMAGE|DISK",
		Description: `IMAGE takes containers/image transports, DISK is a disk.img file. No key is
needed and none is shown. With --server the registration is shown too.

Examples:
   ccrun inspect oci:app-cw
   ccrun inspect --format '{{.Initrd.Identity.WorkloadID}}' localhost/app-cw`,
		Flags:  append(append(serverFlags(), imageFlags()...), face.FormatFlag()),
		Action: runInspect,
	}
}

func runInspect(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "IMAGE|DISK"); err != nil {
		return err
	}
	var status func(context.Context, string) (*kbs.WorkloadStatus, error)
	if c.String("server") != "" {
		client, err := admin(c)
		if err != nil {
			return err
		}
		status = client.Get
	}
	in, err := workload.Inspect(imageContext(c), systemContext(c), c.Args().First(), status)
	if err != nil {
		return buildError(err)
	}
	return face.Print(c, in, printInspection)
}

func printInspection(w io.Writer, in *workload.Inspection) error {
	t := face.Table(w)
	line := func(name, format string, a ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	if in.Image != nil {
		line("digest", "%s", in.Image.Digest)
		line("image ID", "%s", in.Image.ID)
		line("layers", "%s", strings.Join(in.Image.Layers, " "))
		for _, f := range in.Image.Files {
			line("file", "%s %12d %s", f.Mode, f.SizeBytes, f.Name)
		}
	}
	if g := in.Disk.Geometry; g != nil {
		line("disk", "%d bytes, %s %s, UUID %s, %d-byte sectors, data at %d, %d bytes of content",
			in.Disk.SizeBytes, in.Disk.Format, g.Cipher, g.UUID, g.SectorBytes, g.DataOffsetBytes, g.PlainBytes)
		if g.Integrity != nil {
			line("integrity", "%s, %d-byte tags", g.Integrity.Algorithm, g.Integrity.TagBytes)
		} else {
			line("integrity", "none")
		}
	}
	for _, k := range in.Disk.Keyslots {
		line("keyslot", "%s: %s, %d iterations", k.Name, k.KDF, k.Iterations)
	}
	if c := in.TEEConfig; c != nil {
		line("workload", "%s", c.WorkloadID)
		line("machine", "%s, %d vCPU, %d MiB", c.TEE, c.CPUs, c.MemoryMiB)
	}
	printIdentity(line, in)
	printRegistered(line, in.Registered)
	for _, w := range in.Warnings {
		line("warning", "%s", w)
	}
	for _, p := range in.Problems {
		line("PROBLEM", "%s", p)
	}
	return t.Flush()
}

func printIdentity(line func(name, format string, a ...any), in *workload.Inspection) {
	if in.Initrd == nil || in.Initrd.Identity == nil {
		return
	}
	id := in.Initrd.Identity
	line("initrd", "%d bytes, sha256 %s", in.Initrd.SizeBytes, in.Initrd.SHA256)
	line("identity", "%s", in.Initrd.IdentityDigest)
	line("servers", "%s", strings.Join(id.Servers.URLs, " "))
	line("server keys", "%s", strings.Join(id.Servers.PinnedKeys, " "))
	line("network", "%s, name servers [%s]", id.NetworkMode(), strings.Join(id.Network.Resolvers(), " "))
	line("root", "%s, %s", id.Disk.Filesystem, id.Scratch)
	for _, v := range id.Volumes {
		access := ""
		if v.ReadOnly {
			access = ", read-only"
		}
		line("volume", "%s at %s, %d MiB, slot %d%s", v.Name, face.Printable(v.Path), v.Bytes>>20, v.Slot, access)
	}
	line("policy", "logs %s, arguments %v, environment [%s], signals [%s]",
		id.Policy.Logs, id.Policy.ArgsAllow, strings.Join(id.Policy.EnvAllow, " "), strings.Join(id.Policy.Signals, " "))
	for _, r := range id.Policy.Secrets {
		line("secret", "%s", r)
	}
	if len(id.Policy.SecretAllow) > 0 {
		line("secret allow", "%s", strings.Join(id.Policy.SecretAllow, " "))
	}
	if r := id.Policy.SecretRefresh; r != nil {
		line("refresh", "%s", r)
	}
	if id.Logs != nil {
		line("log readers", "%s", strings.Join(id.Logs.Recipients, " "))
	}
	if id.Policy.CDH {
		line("service", "http://127.0.0.1:8006 in the guest: the workload asks for resources, tokens and evidence")
	}
	if id.Policy.AllowACPI {
		line("ACPI", "ALLOWED: %s", krun.ACPIWarning)
	}
	if in.Image == nil {
		return
	}
	for _, m := range strings.Split(in.Image.Labels[krun.LabelLaunchDigests], ",") {
		line("measurement", "%s", m)
	}
}

func printRegistered(line func(name, format string, a ...any), s *kbs.WorkloadStatus) {
	if s == nil {
		return
	}
	line("registered", "%s by %s, %d releases, %d denials", s.RegisteredAt.Format("2006-01-02T15:04:05Z07:00"), s.RegisteredBy, s.Releases, s.Denials)
	if s.RevokedAt != nil {
		line("revoked", "%s", s.RevokedAt.Format("2006-01-02T15:04:05Z07:00"))
	}
	for _, m := range s.Registration.ReferenceValues.Measurements {
		line("accepts", "%s=%s%s", m.Profile, m.LaunchDigest, acpiNote(m))
	}
}

// acpiNote is loud about a measurement that lets the host's ACPI code run.
func acpiNote(m kbs.Measurement) string {
	if m.ACPI == kbs.ACPIAllowed {
		return ", host's ACPI code ALLOWED"
	}
	return ""
}
