// Package workload turns an OCI image into a confidential workload image and
// registers it: `ccrun build`, `inspect` and `register`.
//
// A build is one pass with everything measured known before it: the layers'
// tar headers give the file system's layout and so its size; size, keys and
// process give the identity; the identity gives the launch digests. Then the
// file system is streamed through encryption into the destination, and only
// after its last byte is the workload registered, and only after that does
// the image get its name. No plaintext touches a disk of ours: what must be
// kept between the two readings of a layer is encrypted under a key that
// never leaves memory, in a file that has no name.
package workload

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"sync"
	"time"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/destination"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/scratch"
	"github.com/ccrun/ccrun/workload/source"
)

// Build makes the workload image that o describes, registers it, or writes
// its record, and gives it its name. After an error nothing of it is left.
func Build(ctx context.Context, o Options) (*Result, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	fw, err := o.loadFirmware()
	if err != nil {
		return nil, err
	}
	agent := o.packAgent()
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
	if err := o.chooseID(name); err != nil {
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
	b := &build{Options: o, fw: fw, agent: agent, src: src, dst: dst, image: name}
	return b.run(ctx)
}

// build is one build under way.
type build struct {
	Options
	fw    *firmware.Bundle
	agent func() ([]byte, error) // its initrd segment, made meanwhile
	src   *source.Image
	dst   destination.Image
	image string
	sbom  []byte // with AttachSBOM
}

func (b *build) run(ctx context.Context) (*Result, error) {
	b.fixTime()
	proc, ports, err := b.describe()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", b.src.Name, err)
	}
	fs, err := b.fileSystem(ctx, proc)
	if err == nil && b.Reproducible {
		err = b.deriveFrom(ctx, fs)
	}
	if err != nil {
		return nil, err
	}
	agent, err := b.agent()
	if err != nil {
		return nil, err
	}
	s, err := b.seal(b.fw, agent, fs.SizeBytes(), kbs.Sum384(proc))
	if err != nil {
		return nil, err
	}
	defer s.wipe()
	layer, err := b.writeLayer(ctx, s, fs)
	if err != nil {
		return nil, err
	}
	return b.finish(ctx, s, layer, ports)
}

// fileSystem is what comes onto the disk: the image's files and what the agent
// is to run.
func (b *build) fileSystem(ctx context.Context, proc []byte) (fileSystem, error) {
	tree, err := b.mergeLayers(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", b.src.Name, err)
	}
	b.warnWrapped(tree)
	if err := b.review(ctx, tree); err != nil {
		return nil, err
	}
	if err := addProcess(tree, proc); err != nil {
		return nil, err
	}
	return b.layOut(tree, proc)
}

// describe is what the image wants run, in the form that goes on the disk,
// and the ports it exposes.
func (b *build) describe() (process []byte, exposed string, err error) {
	p, err := processOf(b.src.Config.Config)
	if err != nil {
		return nil, "", err
	}
	if process, err = kbs.Canonical(p); err != nil {
		return nil, "", err
	}
	exposed, err = ports(b.src.Config.Config.ExposedPorts)
	return process, exposed, err
}

// mergeLayers reads every layer.
func (b *build) mergeLayers(ctx context.Context) (*rootfs.Tree, error) {
	tree, err := b.src.Tree(ctx, b.meter("reading layers", b.src.SizeBytes()))
	if err != nil {
		return nil, err
	}
	for _, w := range tree.Warnings() {
		b.Warn(w)
	}
	return tree, nil
}

// warnWrapped finds a workload image that is encrypted once more: an image

// writeLayer streams the disk into the destination, and fails if any layer
// turned out not to be what the manifest says. After it comes what leaves a
// trace: it is the last to see that ctx has ended.
func (b *build) writeLayer(ctx context.Context, s *sealed, fs fileSystem) (blob.Info, error) {
	b.src.Keep(destination.Repeats(b.dst))
	random, err := b.keyslotRandom()
	if err != nil {
		return blob.Info{}, err
	}
	p := &payload{
		teeConfig: s.teeConfig, initrd: s.initrd, diskBytes: s.diskBytes(), created: b.Now(), classic: s.classic,
		writeDisk: func(ctx context.Context, w io.Writer) error {
			rand, err := random()
			if err != nil {
				return err
			}
			return s.writeDisk(ctx, w, fs, rand)
		},
	}
	size, err := p.sizeBytes()
	if err != nil {
		return blob.Info{}, err
	}
	info, err := b.dst.PutLayer(ctx, size, func(ctx context.Context, w io.Writer) error {
		b.src.Rewind()
		return p.write(ctx, &meterWriter{ctx, w, b.meter("encrypting and writing", size)})
	})
	if err != nil {
		return blob.Info{}, fmt.Errorf("writing %s: %w", b.image, err)
	}
	if err := b.src.Verified(); err != nil {
		return blob.Info{}, fmt.Errorf("writing %s: %w", b.image, err)
	}
	if err := b.src.Remember(); err != nil {
		b.Warn(err.Error())
	}
	return info, ctx.Err()
}

func (o *Options) sourceOptions() source.Options {
	return source.Options{System: o.System, TempDir: o.TempDir, Limits: o.Limits, Passphrase: o.SourcePassphrase, DecryptionKeys: o.DecryptionKeys, Cache: o.LayerCache}
}

func (o *Options) setDefaults() {
	if o.TempDir == "" {
		o.TempDir = scratch.DefaultDir()
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Now == nil && !o.Reproducible {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.Filesystem == "" {
		o.Filesystem = "ext4"
	}
	if o.Policy.Logs == "" {
		o.Policy.Logs = "host"
	}
	sys := types.SystemContext{}
	if o.System != nil {
		sys = *o.System
	}
	sys.OSChoice, sys.ArchitectureChoice = "linux", "amd64" // the only guest there is
	o.System = &sys
}

// addProcess puts the image configuration where the agent looks for it, and
// makes the directories that it mounts on or writes to. What an image has in
// place of the latter, perhaps a link, stays.
func addProcess(tree *rootfs.Tree, process []byte) error {
	if err := tree.AddFile(krun.ProcessPath, 0o400, 0, 0, process); err != nil {
		return err
	}
	for _, d := range []struct {
		path  string
		mode  uint32
		mount bool
	}{
		{"/proc", 0o555, true}, {"/sys", 0o555, true}, {"/dev", 0o755, true},
		{"/run", 0o755, false}, {"/tmp", 0o1777, false}, {"/etc", 0o755, false},
	} {
		if !d.mount && tree.Lookup(d.path) != nil {
			continue
		}
		if err := tree.EnsureDir(d.path, d.mode); err != nil {
			return err
		}
	}
	return nil
}

// meter reports progress of one stage.
func (b *build) meter(stage string, total int64) func(int64) {
	var mu sync.Mutex
	var done int64
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		b.Progress(stage, done, total)
	}
}

// meterWriter counts, and stops when the build is cancelled.
type meterWriter struct {
	ctx  context.Context
	w    io.Writer
	done func(int64)
}

func (m *meterWriter) Write(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.w.Write(p)
	m.done(int64(n))
	return n, err
}

// scratchDir makes one if the destination is local storage: the library
// collects a layer in a named file before it imports it. Nothing else needs
// names for what it keeps for a while.
func (o *Options) scratchDir() (*scratch.Dir, error) {
	scratch.Sweep(o.TempDir)
	o.System.BigFilesTemporaryDir = o.TempDir
	t := alltransports.TransportFromImageName(o.Destination)
	if t != nil && t.Name() != istorage.Transport.Name() {
		return nil, nil
	}
	s, err := scratch.NewDir(o.TempDir)
	if err == nil {
		o.System.BigFilesTemporaryDir = s.Path
	}
	return s, err
}

// like any other, but hardly ever meant.
func (b *build) warnWrapped(tree *rootfs.Tree) {
	if tree.Lookup("/"+krun.DiskFile) != nil && tree.Lookup("/"+krun.TEEConfigFile) != nil {
		b.Warn("source is a workload image already: give its passphrase with --source-passphrase-file to build from what is on its disk")
	}
}
