package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun"
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
   ccrun build --workload-id nginx docker://docker.io/library/nginx:1.28 localhost/nginx-cw
   ccrun build --attest-url https://kbs.example:8443 --dns 9.9.9.9 --attest-ca ca.pem \
       --token-file token docker://docker.io/library/nginx:1.28 localhost/nginx-cw
   ccrun build --attest-url https://kbs.example:8443 --dns 9.9.9.9 --attest-ca ca.pem \
       --no-register --record app.record oci:app oci:app-cw`,
		Flags:  append(buildFlags(), imageFlags()...),
		Action: runBuild,
	}
}

func buildFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "tee", Value: string(kbs.SNP), Usage: "`TEE` to run on: snp, tdx, or sample (simulation: protects nothing)"},
		&cli.StringFlag{Name: "vmm", Value: "krun", Usage: "`VMM` that runs it: krun (libkrun, or the simulator), or qemu, with firmware of ccrun firmware compose; measured"},
		&cli.StringFlag{Name: "event-log", Usage: "CCEL `FILE` of a TD like this one, for RTMR 0 (--tee tdx)", TakesFile: true},
		&cli.StringFlag{Name: "rtmr", Usage: "RTMR 0 of such TDs, as `0=HEX`, in place of an event log (--tee tdx)"},
		&cli.UintFlag{Name: "cpus", Value: 1, Usage: "`NUMBER` of vCPUs, 1 to 8; measured"},
		&cli.StringFlag{Name: "memory", Usage: "memory, in MiB or with a unit; measured (default: 2048 `MIB`, 512 for sample)"},
		firmwareFlag("libkrunfw `FILE`, or directory with firmware.json; may be repeated: what each measures is registered (default: the installed library)"),
		&cli.StringFlag{Name: "agent", Usage: "guest agent `FILE` (default: ccrun-init beside ccrun, or in ../libexec/ccrun)"},
		&cli.StringSliceFlag{Name: "attest-url", EnvVars: []string{"CCRUN_ATTEST_URL"}, Usage: "`URL` of the attestation server, as the guest reaches it; may be repeated, tried in order"},
		&cli.StringFlag{Name: "attest-wait", Value: "forever", Usage: "how long the guest waits while no server can answer, `DURATION` or forever; a denial ends it at once; measured"},
		&cli.StringFlag{Name: "attest-ca", Usage: "PEM `FILE` with the server's or its CA's certificates: the only keys the guest will trust"},
		&cli.StringSliceFlag{Name: "pin", Usage: "SHA-256 of a server's or CA's public key (SubjectPublicKeyInfo), `HEX`; may be repeated"},
		&cli.StringFlag{Name: "workload-id", Usage: "`ID` of the workload (default: from DEST's name, with a random part)"},
		newReplaceFlag(),
		&cli.StringFlag{Name: "fs", Value: "btrfs", Usage: "file `SYSTEM` of the image, which is never written to: btrfs, or erofs or ext4 (the workload's writes stay in the guest's memory, if its kernel has overlayfs)"},
		&cli.StringFlag{Name: "scratch", Usage: "room for the workload's writes, kept as long as the container, under a key of its own: `SIZE`, sparse on the host's disk; 0: in the guest's memory; measured (default: 8GiB with btrfs)"},
		&cli.StringFlag{Name: "scratch-damaged", Usage: "what a guest does about a scratch area that does not open: replace it by an empty one, or refuse to start; measured, `RULE` (default: replace)"},
		&cli.BoolFlag{Name: "read-only", Usage: "give the workload a root that cannot be written, with /tmp, /run, /var/tmp and VOLUMEs in memory, as podman run --read-only does; measured"},
		&cli.GenericFlag{Name: "volume", Value: &stringList{}, Usage: "directory whose content outlives containers, `NAME:PATH[,size=SIZE][,ro]` (8GiB): `ccrun volume create` makes the host's file; may be repeated, a new one at the end; measured"},
		&cli.StringFlag{Name: "size", Usage: "with --classic: `SIZE` of the ext4 file system, or +ROOM to write beside the content (default: 1 % of it, at least 4 MiB)"},
		&cli.BoolFlag{Name: "integrity", Value: true, Usage: "authenticate every sector; false only for guest kernels without dm-integrity"},
		&cli.StringFlag{Name: "cipher", Value: "aes-xts", Usage: "`CIPHER` of image and scratch: aes-xts (AES-256-XTS, HMAC-SHA-256) or aegis128 (AEGIS-128: two to three times as fast in the guest, a 128-bit key; needs firmware whose kernel has it); measured"},
		&cli.GenericFlag{Name: "env-allow", Value: &stringList{}, Usage: "environment variable that the key server may set (ccrun workload config), `NAME[=REGEX]`; the host may not; may be repeated; measured"},
		&cli.BoolFlag{Name: "args-allow", Usage: "let the key server set the workload's arguments (ccrun workload config); measured"},
		&cli.BoolFlag{Name: "cdh", Usage: "let the workload ask for resources, tokens and evidence at http://127.0.0.1:8006 and /run/ccrun/cdh.sock in the guest, as under CoCo; measured"},
		&cli.StringFlag{Name: "network", Usage: "`MODE` of the workload's network: none, tsi (libkrun's, through the VMM: also what it sends to 127.0.0.1) or virtio (default: the machine's)"},
		&cli.StringSliceFlag{Name: "dns", Usage: "`ADDRESS` of a name server for agent and workload; measured; may be repeated"},
		&cli.StringSliceFlag{Name: "signals-allow", Usage: "signal that the host may send the workload, `NAME`, beside its StopSignal and KILL; may be repeated; measured"},
		&cli.BoolFlag{Name: "allow-acpi", Usage: "let the host's ACPI code run in the guest's kernel, which nothing measures; measured, registered and shown (QEMU's machines only)"},
		&cli.StringFlag{Name: "logs", Value: krun.LogsHost, Usage: "`WHERE` the workload's output goes: host, encrypted or none; \"ccrun logs\" reads an encrypted one"},
		&cli.StringSliceFlag{Name: "log-recipient", Usage: "age `RECIPIENT`, age1... or age1pq1..., who reads encrypted logs (repeatable)"},
		&cli.BoolFlag{Name: "classic", Usage: "image for the init of libkrunfw before version 5 (LUKS1, no integrity, no measurement of its own); needs such --firmware"},
		&cli.StringFlag{Name: "profile", Usage: "with --classic: the VMM whose measurement is registered, `NAME` (default: libkrun-1.12)"},
		sourcePassphraseFlag(),
		decryptionKeyFlag(),
		&cli.StringFlag{Name: "passphrase-file", Usage: "take the disk's passphrase from `FILE` (default: 256 random bits)"},
		&cli.BoolFlag{Name: "reproducible", Usage: "same inputs, same image: needs --workload-id and --passphrase-file with 64 hex digits; honours SOURCE_DATE_EPOCH"},
		&cli.StringFlag{Name: "layer-cache", EnvVars: []string{"CCRUN_LAYER_CACHE"}, Usage: "keep fetched and decompressed layers in `DIR` for the next build, encrypted under a key that is only in memory"},
		&cli.BoolFlag{Name: "no-register", Usage: "do not register; needs --record"},
		&cli.StringFlag{Name: "record", Usage: "write the registration to `FILE`; with --no-register it holds the disk key"},
		&cli.StringFlag{Name: "iidfile", Usage: "write the image's ID to `FILE`"},
		&cli.StringFlag{Name: "digestfile", Usage: "write the digest of the image's manifest to `FILE`"},
		face.FormatFlag(),
	}, slices.Concat(secretFlags(), ruleFlags(), releaseFlags(), serverFlags(), trustFlags())...)
}

// firmwareFlag names firmware once or several times.
func firmwareFlag(usage string) cli.Flag {
	return &cli.GenericFlag{Name: "firmware", EnvVars: []string{"CCRUN_FIRMWARE"}, Value: &stringList{}, Usage: usage}
}

func firmwareOf(c *cli.Context) []string { return *c.Generic("firmware").(*stringList) }

func runBuild(c *cli.Context) error {
	if err := face.Args(c, 2, 2, "SOURCE DEST"); err != nil {
		return err
	}
	if c.Bool("classic") {
		return runClassic(c)
	}
	o, err := buildOptions(c)
	if err != nil {
		return err
	}
	defer o.Passphrase.Wipe()
	defer o.SourcePassphrase.Wipe()
	bar := newProgress(c)
	o.Progress = bar.show
	res, err := workload.Build(imageContext(c), *o)
	bar.clear()
	if err != nil {
		return buildError(err)
	}
	if err := writeIDs(c, res.ImageID, res.Digest); err != nil {
		return err
	}
	if face.LogLevel(c) != "error" {
		fmt.Fprint(c.App.ErrWriter, moveHint(res.Image))
	}
	return face.Print(c, res, printBuild)
}

// moveHint is a line about an image in local storage, from where Podman pushes
// and saves what it calls the same image under another digest.
func moveHint(image string) string {
	if !strings.HasPrefix(image, "containers-storage:") {
		return ""
	}
	return "ccrun: hint: `podman push` compresses it in vain and changes its digest, without attachments and signature: " +
		"`skopeo copy --preserve-digests " + image + " docker://REGISTRY/NAME:TAG`, or build into docker://\n"
}

func printBuild(w io.Writer, r *workload.Result) error {
	fmt.Fprintf(w, "image:       %s\ndigest:      %s\nworkload:    %s\n", r.Image, r.Digest, r.Registration.WorkloadID)
	for _, m := range r.Registration.ReferenceValues.Measurements {
		fmt.Fprintf(w, "measurement: %s (%s, %d vCPU, %d MiB%s)\n", m.LaunchDigest, m.Profile, m.CPUs, m.MemoryMiB, acpiNote(m))
	}
	if allowed := allowedAdvisories(r.Registration.ReferenceValues); len(allowed) > 0 {
		fmt.Fprintf(w, "allowed:     firmware with %s open\n", strings.Join(allowed, ", "))
	}
	printReplaced(w, r.Replaced)
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
