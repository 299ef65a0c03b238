package workload

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/destination"
	"github.com/ccrun/ccrun/workload/scratch"
	"github.com/ccrun/ccrun/workload/source"
)

const (
	classicLayout = "classic"
	// maxClassicURL is what the old init's buffer holds (kbs_curl.c: 100 bytes
	// with the NUL).
	maxClassicURL = 99
	// classicIterations stretch a passphrase that somebody made up: OWASP's
	// number for PBKDF2-SHA256. LUKS1 has nothing better.
	classicIterations = 600_000
)

// ClassicWarning is what whoever asks for a classic image should read.
const ClassicWarning = "classic images have the same measurement as every other workload on that firmware, and a disk without integrity: the host can take their keys and change their content. Build without --classic where the host has a current stack"

// ClassicOptions are what is particular to a classic image.
type ClassicOptions struct {
	Options
	// Legacy is where the workload is registered; nil: nowhere, and then
	// RecordPath gets the registration with the passphrase.
	Legacy LegacyRegistrar
	// Profile is the VMM whose measurement is registered: the legacy form has
	// room for one. Empty: measure.Libkrun112, the last that took such firmware.
	Profile measure.Profile
}

// ClassicResult is what BuildClassic made. It holds no secret.
type ClassicResult struct {
	Image        string            `json:"image"`
	Digest       string            `json:"digest"`
	ImageID      string            `json:"image_id"`
	Source       string            `json:"source"`
	SourceDigest string            `json:"source_digest"`
	WorkloadID   string            `json:"workload_id"`
	DiskBytes    int64             `json:"disk_bytes"`
	Profile      measure.Profile   `json:"profile"`
	Measurement  string            `json:"measurement"` // of Profile
	Registered   bool              `json:"registered"`
	Record       string            `json:"record,omitempty"`
	Measurements map[string]string `json:"measurements"` // of every profile
}

// BuildClassic makes an image for the upstream init of libkrunfw before
// version 5: LUKS1, ext4, footer, no initrd of its own, as `buildah mkcw`
// lays it out. It is no safer than that; see ClassicWarning.
func BuildClassic(ctx context.Context, o ClassicOptions) (*ClassicResult, error) {
	o.setDefaults()
	if o.Profile == "" {
		o.Profile = measure.Libkrun112
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	fw, err := o.loadFirmware()
	if err != nil {
		return nil, err
	}
	if err := checkOldInit(fw.Initrd); err != nil {
		return nil, err
	}
	tmp, err := o.scratchDir()
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	dst, name, err := destination.Open(ctx, o.System, o.Destination)
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	if err := errors.Join(o.chooseID(name), o.checkURL()); err != nil {
		return nil, err
	}
	if err := o.preflight(ctx); err != nil {
		return nil, err
	}
	src, err := source.Open(ctx, o.Source, o.sourceOptions())
	if err != nil {
		return nil, err
	}
	defer src.Close()
	c := &classic{ClassicOptions: o, build: &build{Options: o.Options, fw: fw, src: src, dst: dst, image: name}}
	return c.run(ctx)
}

// check refuses what BuildClassic could only fail at later.
func (o *ClassicOptions) check() error {
	switch {
	case o.Source == "" || o.Destination == "":
		return hint.Usagef("source and destination are needed")
	case o.TEE != kbs.SNP:
		return hint.Usagef("TEE %q: classic images are for snp", o.TEE)
	case o.Filesystem != "ext4":
		return hint.Usagef("file system %q: the old init mounts ext4", o.Filesystem)
	case o.SizeBytes < 0 || o.SizeBytes%4096 != 0:
		return hint.Usagef("disk size %d, expected a multiple of 4096", o.SizeBytes)
	case len(o.Policy.EnvAllow) > 0 || o.Policy.ArgsAllow || o.Policy.Logs != "host":
		return hint.Usagef("a launch policy: the old init has none")
	case o.Reproducible:
		return hint.Usagef("classic images cannot be built reproducibly")
	case o.Sign != nil || len(o.Attach) > 0:
		return hint.Usagef("attachments: a classic image has none")
	case len(o.Servers.URLs) != 1:
		return hint.Usagef("%d servers: the old init knows one", len(o.Servers.URLs))
	case o.Legacy == nil && o.RecordPath == "":
		return hint.With(hint.Usagef("a build that is not registered needs a record, or its passphrase is lost"), "add --record FILE")
	case o.Passphrase.Len() > 0 && o.Passphrase.Len() < minPassphraseBytes:
		return hint.Usagef("passphrase of %d bytes, expected at least %d", o.Passphrase.Len(), minPassphraseBytes)
	case o.WorkloadID != "" && !kbs.ValidWorkloadID(o.WorkloadID):
		return hint.Usagef("workload id %q: expected up to 128 letters, digits, '.', '_', '-'", o.WorkloadID)
	case bytes.ContainsAny(o.Passphrase.Reveal(), "\x00\n"):
		return hint.Usagef("passphrase with a line end or NUL: the old init hands it to cryptsetup as a line")
	}
	t := krun.TEEConfig{WorkloadID: "x", CPUs: o.CPUs, MemoryMiB: o.MemoryMiB, TEE: o.TEE}
	if err := t.Validate(); err != nil {
		return hint.Usagef("%w", err)
	}
	return nil
}

// checkURL keeps to the old client's buffers.
func (o *ClassicOptions) checkURL() error {
	u, err := url.Parse(o.Servers.URLs[0])
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return hint.Usagef("server URL %q: expected http(s)://HOST[:PORT]", o.Servers.URLs[0])
	}
	if n := len(strings.TrimSuffix(o.Servers.URLs[0], "/") + "/kbs/v0/key/" + o.WorkloadID); n > maxClassicURL {
		return hint.With(hint.Usagef("server URL and workload id make %d bytes, the old init has room for %d", n, maxClassicURL), "choose a shorter --workload-id")
	}
	return nil
}

// maxOldInitrd bounds what an initrd may unpack to.
const maxOldInitrd = 64 << 20

// checkOldInit looks for the attestation client in the firmware's own init.
// Since libkrunfw 5 it has none: such a guest would mount ciphertext.
func checkOldInit(initrd []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(initrd))
	if err != nil {
		return hint.With(fmt.Errorf("reading the firmware's initrd: %w", err), "--classic needs the firmware's own initrd: libkrunfw-sev.so.4")
	}
	z.Multistream(false)
	b, err := bounded.Read(z, "the firmware's initrd", maxOldInitrd)
	if err != nil {
		return err
	}
	if !bytes.Contains(b, []byte("/kbs/v0/")) {
		return hint.With(fmt.Errorf("the firmware's init has no attestation client: a classic image %w", ErrNotCapable), "use libkrunfw before version 5, or build without --classic")
	}
	return nil
}

// classic is one such build under way.
type classic struct {
	ClassicOptions
	build *build
}

func (c *classic) run(ctx context.Context) (*ClassicResult, error) {
	b := c.build
	proc, err := classicProcess(b.src.Config.Config)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", b.src.Name, err)
	}
	fs, err := b.fileSystem(ctx, proc)
	if err != nil {
		return nil, err
	}
	s, err := c.seal(fs.SizeBytes())
	if err != nil {
		return nil, err
	}
	defer s.wipe()
	layer, err := b.writeLayer(ctx, s, fs)
	if err != nil {
		return nil, err
	}
	return c.finish(ctx, s, layer)
}

// classicProcess is the configuration in a form that cannot confuse the old
// init: it compares every string in the file with the names of its members,
// wherever it stands, and runs /bin/sh when there is an Entrypoint but no Cmd.
// So Cmd is the whole command, WorkingDir stands before it, and the one name
// that could then still be found in it is refused.
func classicProcess(config imgspec.ImageConfig) ([]byte, error) {
	p, err := processOf(config)
	if err != nil {
		return nil, err
	}
	out := struct {
		WorkingDir string
		Cmd, Env   []string
	}{p.WorkingDir, append(p.Entrypoint, p.Cmd...), p.Env}
	if out.WorkingDir == "" {
		out.WorkingDir = "/"
	}
	for _, a := range out.Cmd {
		if strings.EqualFold(a, "entrypoint") {
			return nil, fmt.Errorf("the old init takes the argument %q for a member of its configuration", a)
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err = e.Encode(out)
	return bytes.TrimSpace(b.Bytes()), err
}

// seal draws the keys and makes the footer.
func (c *classic) seal(plainBytes int64) (*sealed, error) {
	s := &sealed{classic: true, kdf: luks.FastKDF()}
	id, err := uuid.NewRandomFromReader(c.Rand)
	if err != nil {
		return nil, fmt.Errorf("drawing disk UUID: %w", err)
	}
	if s.geometry, err = luks.V1Geometry(id.String(), plainBytes); err != nil {
		return nil, fmt.Errorf("laying out disk: %w", err)
	}
	if s.volumeKey, err = luks.NewVolumeKey(c.Rand, s.geometry); err != nil {
		return nil, err
	}
	if c.Passphrase.Len() > 0 {
		s.diskKey = secret.New(bytes.Clone(c.Passphrase.Reveal()))
		if kdfFor(s.diskKey).Type != "pbkdf2" {
			s.kdf.Iterations = classicIterations
		}
	} else {
		var key [32]byte
		if _, err := io.ReadFull(c.Rand, key[:]); err != nil {
			return nil, fmt.Errorf("drawing disk key: %w", err)
		}
		s.diskKey = secret.New(hex.AppendEncode(nil, key[:]))
		clear(key[:])
	}
	return s, s.configure(&c.Options)
}

func (c *classic) measure(fw *firmware.Bundle) (map[string]string, error) {
	in, err := measure.FromBundle(fw, nil) // the firmware's own initrd
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, p := range measure.Profiles(c.TEE, fw.Kind) {
		r, err := measure.Launch(p, in, measure.Shape{CPUs: uint(c.CPUs), MemoryMiB: c.MemoryMiB})
		if err != nil {
			return nil, fmt.Errorf("measuring for %s: %w", p, err)
		}
		all[string(p)] = r.Digest.String()
	}
	if all[string(c.Profile)] == "" {
		return nil, hint.Usagef("profile %q is none of this firmware's", c.Profile)
	}
	return all, nil
}

// finish registers and publishes, in Build's order. The legacy dialect has no
// way to take a registration back.
func (c *classic) finish(ctx context.Context, s *sealed, layer blob.Info) (*ClassicResult, error) {
	b := c.build
	all, err := c.measure(b.fw)
	if err != nil {
		return nil, err
	}
	l := map[string]string{krun.LabelLayout: classicLayout, krun.LabelWorkloadID: c.WorkloadID, krun.LabelTEE: string(c.TEE), krun.LabelSource: b.src.Digest.String()}
	config, err := imageConfig(b.Now().UTC(), layer.Digest, l, b.src.Config.Config.ExposedPorts)
	if err != nil {
		return nil, err
	}
	manifest, err := imageManifest(b.dst.Accepts(), blob.Info{Digest: digest.FromBytes(config), Size: int64(len(config))}, layer, l)
	if err != nil {
		return nil, err
	}
	if err := c.keep(ctx, s, all[string(c.Profile)]); err != nil {
		return nil, err
	}
	if err := b.dst.Publish(ctx, config, manifest); err != nil {
		return nil, fmt.Errorf("writing %s: %w", b.image, err)
	}
	return &ClassicResult{
		Image: b.image, Digest: digest.FromBytes(manifest).String(), ImageID: digest.FromBytes(config).String(),
		Source: b.src.Name, SourceDigest: b.src.Digest.String(), WorkloadID: c.WorkloadID, DiskBytes: s.diskBytes(),
		Profile: c.Profile, Measurement: all[string(c.Profile)], Measurements: all,
		Registered: c.Legacy != nil, Record: c.RecordPath,
	}, nil
}

func (c *classic) keep(ctx context.Context, s *sealed, measurement string) error {
	r := LegacyRegistration{
		WorkloadID: c.WorkloadID, LaunchMeasurement: measurement,
		Passphrase: string(s.diskKey.Reveal()), TEEConfig: legacySNPPolicy,
	}
	if c.RecordPath != "" {
		j, err := kbs.Canonical(r)
		if err != nil {
			return err
		}
		defer clear(j)
		if err := scratch.WriteFile(c.RecordPath, append(j, '\n'), 0o600); err != nil {
			return fmt.Errorf("writing record: %w", err)
		}
	}
	if c.Legacy == nil {
		return nil
	}
	if err := c.Legacy.RegisterLegacy(ctx, r); err != nil {
		return registerHint(fmt.Errorf("registering workload %s: %w", c.WorkloadID, err))
	}
	return nil
}
