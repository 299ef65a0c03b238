package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload"
	"github.com/ccrun/ccrun/workload/source"
)

func buildOptions(c *cli.Context) (*workload.Options, error) {
	o := &workload.Options{
		WorkloadID: c.String("workload-id"),
		Policy: krun.LaunchPolicy{
			EnvAllow: *c.Generic("env-allow").(*stringList), ArgsAllow: c.Bool("args-allow"), Logs: c.String("logs"), CDH: c.Bool("cdh"),
		},
		Servers:       krun.Servers{URLs: c.StringSlice("attest-url"), PinnedKeys: c.StringSlice("pin")},
		Network:       network(c),
		LogRecipients: c.StringSlice("log-recipient"),
		Reproducible:  c.Bool("reproducible"),
	}
	if err := setParts(c, &o.Environment, &o.SourceOptions, &o.MachineOptions, &o.DiskOptions); err != nil {
		return nil, err
	}
	o.Destination, o.RecordPath, o.NoIntegrity = c.Args().Get(1), c.String("record"), !c.Bool("integrity")
	o.PublishSource = c.Bool("publish-source")
	var err error
	if o.Policy.Signals, err = krun.ParseHostSignals(c.StringSlice("signals-allow")); err != nil {
		return nil, face.Usagef("--signals-allow: %w", err)
	}
	if dir := c.String("layer-cache"); dir != "" {
		o.LayerCache = &source.LayerCache{Dir: dir}
	}
	for _, set := range []func(*cli.Context, *workload.Options) error{setServers, setMachine, setSecrets, setRelease, setRules, setTrust, setReplace, setRegistrar, preflight} {
		if err := set(c, o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// network is nil unless the image has a say in it, so that the identity of
// others stays as it was.
func network(c *cli.Context) *krun.Network {
	if !c.IsSet("network") && !c.IsSet("dns") {
		return nil
	}
	return &krun.Network{Mode: krun.NetworkMode(c.String("network")), DNS: c.StringSlice("dns")}
}

// setParts sets what both kinds of images take.
func setParts(c *cli.Context, e *workload.Environment, s *workload.SourceOptions, m *workload.MachineOptions, d *workload.DiskOptions) error {
	log := program.Log(c)
	e.System, e.Warn = systemContext(c), func(s string) { log.Warn(s) }
	s.Source, s.Lint, s.AllowedBases = c.Args().Get(0), lintLevel(c), c.StringSlice("base-allow")
	m.TEE, d.Filesystem, d.Cipher = kbs.TEE(c.String("tee")), c.String("fs"), c.String("cipher")
	if c.Bool("classic") && !c.IsSet("fs") {
		d.Filesystem = "" // the one that there is
	}
	if m.AllowACPI = c.Bool("allow-acpi"); m.AllowACPI {
		log.Warn("--allow-acpi: " + krun.ACPIWarning)
	}
	if c.Uint("cpus") > 255 {
		return face.Usagef("--cpus %d: expected 1 to 8", c.Uint("cpus"))
	}
	m.CPUs = uint8(c.Uint("cpus"))
	if err := setTime(e); err != nil {
		return err
	}
	if err := setSizes(c, m, d); err != nil {
		return err
	}
	var err error
	if d.Passphrase, err = passphrase(c, "passphrase-file"); err != nil {
		return err
	}
	if s.SourcePassphrase, err = passphrase(c, "source-passphrase-file"); err != nil {
		return err
	}
	s.DecryptionKeys, err = decryptionKeys(c)
	return err
}

// setTime takes SOURCE_DATE_EPOCH (reproducible-builds.org) for the time.
func setTime(e *workload.Environment) error {
	v, ok := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !ok || v == "" {
		return nil
	}
	n, err := strconv.ParseUint(v, 10, 33)
	if err != nil {
		return face.Usagef("SOURCE_DATE_EPOCH %q: expected seconds since 1970", v)
	}
	e.Now = func() time.Time { return time.Unix(int64(n), 0) }
	return nil
}

func setSizes(c *cli.Context, m *workload.MachineOptions, d *workload.DiskOptions) error {
	memory := c.String("memory")
	switch {
	case memory == "" && m.TEE == kbs.Sample:
		memory = "512"
	case memory == "":
		memory = "2048"
	}
	n, err := parseMemoryMiB(memory)
	if err != nil {
		return err
	}
	m.MemoryMiB = n
	if err := setScratch(c, d); err != nil {
		return err
	}
	if err := setVolumes(c, d); err != nil {
		return err
	}
	return diskSize(d, c.String("size"))
}

// setVolumes reads the volumes. Each has the slot of its place in the list, or the
// one that it is given.
func setVolumes(c *cli.Context, d *workload.DiskOptions) error {
	list, ok := c.Generic("volume").(*stringList)
	if !ok || list == nil {
		return nil
	}
	if len(*list) > 0 && c.Bool("classic") {
		return face.Usagef("--volume: a classic image's guest knows no volumes")
	}
	for slot, s := range *list {
		v, err := parseVolume(s, slot)
		if err != nil {
			return err
		}
		d.Volumes = append(d.Volumes, v)
	}
	return nil
}

// parseVolume reads NAME:PATH[,size=SIZE][,slot=N][,ro].
func parseVolume(s string, slot int) (krun.Volume, error) {
	place, rest, more := strings.Cut(s, ",")
	name, path, ok := strings.Cut(place, ":")
	v := krun.Volume{Name: name, Path: path, Bytes: krun.DefaultVolumeBytes, Slot: slot}
	wrong := face.Usagef("--volume %q: expected NAME:PATH[,size=SIZE][,slot=0 to %d][,ro], as in data:/var/lib/data,size=20g", s, krun.MaxVolumes-1)
	if !ok {
		return v, wrong
	}
	for option := range strings.SplitSeq(rest, ",") {
		value, sized := strings.CutPrefix(option, "size=")
		number, slotted := strings.CutPrefix(option, "slot=")
		switch {
		case !more:
		case option == "ro":
			v.ReadOnly = true
		case sized:
			n, err := units.RAMInBytes(value)
			if err != nil || n <= 0 || n > krun.MaxVolumeBytes {
				return v, wrong
			}
			v.Bytes = (n + 4095) / 4096 * 4096
		case slotted:
			n, err := strconv.ParseUint(number, 10, 8)
			if err != nil {
				return v, wrong
			}
			v.Slot = int(n)
		default:
			return v, wrong
		}
	}
	return v, nil
}

// setScratch reads where the workload's writes go. Without a word it is the
// default of workload.DiskOptions.
func setScratch(c *cli.Context, d *workload.DiskOptions) error {
	size, rule, readOnly := c.String("scratch"), c.String("scratch-damaged"), c.Bool("read-only")
	switch {
	case c.Bool("classic") && (size != "" || rule != "" || readOnly):
		return face.Usagef("--scratch, --scratch-damaged and --read-only: a classic image is written to itself")
	case !c.Bool("classic") && c.String("size") != "":
		return hint.With(face.Usagef("--size: an image is not written to"), "--scratch SIZE is the room for what the workload writes")
	case readOnly && (size != "" || rule != ""):
		return face.Usagef("--read-only and --scratch: a root that cannot be written needs no room to write in")
	case readOnly:
		d.Scratch.Kind = krun.ScratchNone
		return nil
	case size == "" && rule == "":
		return nil
	}
	d.Scratch = krun.Scratch{Kind: krun.ScratchDisk, Bytes: workload.DefaultScratchBytes, Damaged: cmp.Or(rule, krun.DamagedReplace)}
	if size == "" {
		return nil
	}
	n, err := units.RAMInBytes(size)
	if err != nil || n < 0 {
		return face.Usagef("--scratch %q: expected a number with a unit, as in 8g or 8GiB, or 0", size)
	}
	if d.Scratch.Bytes = (n + 4095) / 4096 * 4096; n == 0 {
		d.Scratch = krun.Scratch{Kind: krun.ScratchMemory, Damaged: rule}
	}
	return nil
}

// diskSize reads "2g" or "2GiB", the size of all, and "+64m", the room beside
// the content.
func diskSize(d *workload.DiskOptions, s string) error {
	if s == "" {
		return nil
	}
	room, more := strings.CutPrefix(s, "+")
	size, err := units.RAMInBytes(room)
	if err != nil || size <= 0 || strings.HasPrefix(room, "+") {
		return face.Usagef("--size %q: expected a number with a unit, as in 2g or 2GiB, or the room to write, as in +64m", s)
	}
	if size = (size + 4095) / 4096 * 4096; more {
		d.FreeBytes = size
	} else {
		d.SizeBytes = size
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
		return 0, face.Usagef("--memory %q: expected whole MiB, as in 512, 2g or 2GiB", s)
	}
	return uint(n >> 20), nil
}

func setServers(c *cli.Context, o *workload.Options) error {
	wait, err := attestWait(c.String("attest-wait"))
	if err != nil {
		return err
	}
	o.Servers.WaitSeconds = wait
	v, err := connectionOf(c)
	if err != nil {
		return err
	}
	if len(o.Servers.URLs) == 0 && v.server != "" {
		o.Servers.URLs = []string{v.server}
	}
	path := c.String("attest-ca")
	if path == "" && len(o.Servers.PinnedKeys) == 0 {
		path = v.ca
	}
	if path == "" {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return hint.With(fmt.Errorf("reading --attest-ca: %w", err), attestCAHint)
	}
	pins, err := kbs.PinsFromPEM(pem)
	if err != nil {
		return hint.With(face.Usagef("reading --attest-ca %s: %w", path, err), attestCAHint)
	}
	o.Servers.PinnedKeys = append(o.Servers.PinnedKeys, pins...)
	return nil
}

// attestCAHint is where guests' trust comes from.
const attestCAHint = "ca.pem is in the server's data directory, and public: copy it from there; or give --pin, as `attest-server certs ls` shows it"

// attestWait is a duration in whole seconds; 0 for "forever", which leaves the
// identity as it was before there was a choice.
func attestWait(s string) (uint32, error) {
	if s == "forever" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > math.MaxUint32*time.Second || d%time.Second != 0 {
		return 0, face.Usagef("--attest-wait %q: expected whole seconds, as in 90s, 30m or 72h, or forever", s)
	}
	return uint32(d / time.Second), nil
}

// setMachine finds firmware and guest agent.
func setMachine(c *cli.Context, o *workload.Options) error {
	if !o.TEE.Valid() {
		return face.Usagef("--tee %q: expected snp, tdx or sample", o.TEE)
	}
	if list := firmwareOf(c); len(list) > 0 {
		o.Firmware, o.MoreFirmware = list[0], list[1:]
	}
	if err := setQEMU(c, &o.MachineOptions); err != nil {
		return err
	}
	if o.Firmware == "" {
		if o.TEE == kbs.Sample {
			return hint.With(face.Usagef("--tee sample needs --firmware DIR"), "`ccrun-sim firmware` makes one")
		}
		path, err := firmware.FindInstalled()
		if err != nil {
			return hint.With(face.WithStatus(face.NotCapable, err), "install libkrunfw built with SEV=1, or name it with --firmware")
		}
		o.Firmware = path
	}
	path, err := findAgent(c.String("agent"))
	if err != nil {
		return err
	}
	if o.Agent, err = os.ReadFile(path); err != nil {
		return hint.With(fmt.Errorf("reading guest agent: %w", err), "leave out --agent for the one that is installed, or name a ccrun-init")
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
	return "", hint.With(fmt.Errorf("no guest agent ccrun-init in %s or %s", dir, filepath.Join(dir, "../libexec/ccrun")),
		"`make build` makes it; name it with --agent")
}

// passphrase is what the file of flag holds; empty without the flag.
func passphrase(c *cli.Context, flag string) (secret.Bytes, error) {
	path := c.String(flag)
	if path == "" {
		return secret.Bytes{}, nil
	}
	p, err := face.ReadSecretFile(path)
	if err != nil {
		return p, fmt.Errorf("reading --%s: %w", flag, err)
	}
	if p.Len() == 0 {
		return p, face.Usagef("--%s %s is empty", flag, path)
	}
	return p, nil
}

func setRegistrar(c *cli.Context, o *workload.Options) error {
	if c.Bool("no-register") {
		return nil
	}
	v, err := registrar(c, o.Servers.URLs)
	if err != nil {
		return err
	}
	client, err := adminClient(v.server, v.ca, v.tokenFile)
	if err != nil {
		return err
	}
	o.Registrar = client
	return mayRegister(c.Context, client, o)
}

func sourcePassphraseFlag() cli.Flag {
	return &cli.StringFlag{Name: "source-passphrase-file", Usage: "SOURCE is a workload image, of buildah mkcw for example: `FILE` has its disk's passphrase, build what is on that disk"}
}
