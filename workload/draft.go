package workload

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/process"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/destination"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/source"
)

// draft is an image that has no name yet: what both kinds of builds have in
// hand, and the steps that they have in common.
type draft struct {
	env  *Environment
	fw   []*firmware.Bundle // the one that is built for, then those that may be in its place
	out  *target
	src  *source.Image
	proc []byte // the process, as it goes on the disk
	tree *rootfs.Tree
	fs   fileSystem

	exposed []string // ports, as labels list them
	user    process.Credentials

	sealed *sealed
	layer  blob.Info
	image  *description
}

// close drops what has no name, and wipes the keys.
func (d *draft) close() {
	if d.sealed != nil {
		d.sealed.wipe()
	}
	if d.src != nil {
		_ = d.src.Close()
	}
	if d.out != nil {
		d.out.close()
	}
}

func (d *draft) openSource(ctx context.Context, o *SourceOptions) (err error) {
	d.src, err = source.Open(ctx, o.Source, source.Options{
		System: d.env.System, TempDir: d.env.TempDir, Limits: o.Limits,
		Passphrase: o.SourcePassphrase, DecryptionKeys: o.DecryptionKeys, Cache: o.LayerCache,
	})
	return err
}

// readSource reads all layers, and reviews what they make.
func (d *draft) readSource(ctx context.Context, o *SourceOptions) (err error) {
	if d.tree, err = d.src.Tree(ctx, d.env.meter("reading layers", d.src.SizeBytes())); err != nil {
		return fmt.Errorf("reading %s: %w", d.src.Name, err)
	}
	for _, w := range d.tree.Warnings() {
		d.env.Warn(w)
	}
	// A workload image that is encrypted once more works, but is hardly ever
	// what was meant.
	if d.tree.Lookup("/"+krun.DiskFile) != nil && d.tree.Lookup("/"+krun.TEEConfigFile) != nil {
		d.env.Warn("source is a workload image already: give its passphrase with --source-passphrase-file to build from what is on its disk")
	}
	d.exposed = exposed(d.src.Config.Config.ExposedPorts, d.env.Warn)
	if d.user, err = d.findUser(ctx); err != nil {
		return fmt.Errorf("reading %s: %w", d.src.Name, err)
	}
	return review(ctx, d.env, d.src, d.tree, o)
}

// findUser looks the image's user up where the agent will.
func (d *draft) findUser(ctx context.Context) (process.Credentials, error) {
	passwd, err := d.src.ReadFile(ctx, d.tree, "/etc/passwd", process.MaxDatabase)
	if err != nil {
		return process.Credentials{}, err
	}
	group, err := d.src.ReadFile(ctx, d.tree, "/etc/group", process.MaxDatabase)
	if err != nil {
		return process.Credentials{}, err
	}
	c := d.src.Config.Config
	if _, err := process.MissingAccounts(c.User, c.WorkingDir, passwd, group); err != nil {
		return process.Credentials{}, err
	}
	return process.LookUp(c.User, bytes.NewReader(passwd), bytes.NewReader(group))
}

// layOut plans the file system: the image's files and what the agent is to run.
func (d *draft) layOut(o *DiskOptions) error {
	if err := addProcess(d.tree, d.proc); err != nil {
		return err
	}
	c := d.src.Config.Config
	if err := addDirectories(d.tree, c, o.Volumes, d.user); err != nil {
		return err
	}
	for _, w := range unheeded(c, d.src.Healthcheck, o) {
		d.env.Warn(w)
	}
	at := d.env.Now()
	id, err := o.contentID(d.src.Config.RootFS.DiffIDs, d.proc, at)
	if err != nil {
		return err
	}
	d.fs, err = o.layOut(d.tree, id, at)
	return err
}

// writeLayer streams the disk into the destination, and fails if any layer of
// the source turned out not to be what the manifest says. After it comes what
// leaves a trace: it is the last to see that ctx has ended.
func (d *draft) writeLayer(ctx context.Context, random randomness) error {
	d.src.Keep(destination.Repeats(d.out.Image))
	keyslot, err := random.keyslot()
	if err != nil {
		return err
	}
	hints, err := krun.Hints{Firmware: hex.EncodeToString(d.fw[0].Digest[:]), Ports: d.exposed, DiskBytes: d.sealed.launchBytes, Volumes: d.sealed.volumes, Profile: d.sealed.profile}.Encode()
	if err != nil {
		return err
	}
	p := d.sealed.payload(hints, d.env.Now(), func(ctx context.Context, w io.Writer) error {
		r, err := keyslot()
		if err != nil {
			return err
		}
		return d.sealed.writeDisk(ctx, w, d.fs, r)
	})
	size, err := p.sizeBytes()
	if err != nil {
		return err
	}
	d.layer, err = d.out.PutLayer(ctx, size, func(ctx context.Context, w io.Writer) error {
		d.src.Rewind()
		return p.write(ctx, &meterWriter{ctx, w, d.env.meter("encrypting and writing", size)})
	})
	if err == nil {
		err = d.src.Verified()
	}
	if err != nil {
		return registry.WithHint(fmt.Errorf("writing %s: %w", d.out.name, err), "nothing was registered: check that DEST can be reached and written (`podman login` for a registry), and build again")
	}
	if err := d.src.Remember(); err != nil {
		d.env.Warn(err.Error())
	}
	return ctx.Err()
}

// describe makes the image's configuration and manifest.
func (d *draft) describe(labels map[string]string) (err error) {
	d.image, err = describeImage(d.out.Accepts(), d.env.Now().UTC(), d.layer, labels, d.exposed)
	return err
}

// publish gives the image its name.
func (d *draft) publish(ctx context.Context) error {
	if err := d.out.Publish(ctx, d.image.config, d.image.manifest); err != nil {
		return fmt.Errorf("writing %s: %w", d.out.name, err)
	}
	d.env.compareName(ctx, d.out.name, d.image.digest())
	return nil
}
