package workload

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/workload/erofs"
	"github.com/ccrun/ccrun/workload/ext4"
	"github.com/ccrun/ccrun/workload/rootfs"
)

const fsLabel = "ccrun"

// layOut plans the file system, so that its size is known.
func (b *build) layOut(tree *rootfs.Tree, process []byte) (fileSystem, error) {
	id, err := b.contentID(process)
	if err != nil {
		return nil, err
	}
	uuid, seed := [16]byte(id[:16]), [16]byte(id[16:])
	uuid[6], uuid[8] = uuid[6]&0x0f|0x80, uuid[8]&0x3f|0x80 // RFC 9562, version 8
	if b.Filesystem == "erofs" {
		fs, err := erofs.Plan(tree, erofs.Options{UUID: uuid, Label: fsLabel, Time: b.Now()})
		if err != nil {
			return nil, err
		}
		return fs, nil
	}
	fs, err := ext4.Plan(tree, ext4.Options{
		SizeBytes: b.SizeBytes, FreeBytes: b.FreeBytes, UUID: uuid, HashSeed: seed,
		Label: fsLabel, Time: b.Now(), Journal: true,
	})
	if errors.Is(err, ext4.ErrTooSmall) {
		return nil, hint.With(err, "give a larger --size, or none: then the disk is as large as its content asks for")
	}
	if err != nil {
		return nil, err
	}
	return fs, nil
}

// measurements are the launch digests of every VMM that may boot this initrd.
func measurements(o *Options, fw *firmware.Bundle, initrd []byte) ([]kbs.Measurement, error) {
	in, err := measure.FromBundle(fw, initrd)
	if err != nil {
		return nil, err
	}
	prepared, err := measure.Prepare(in)
	if err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	var list []kbs.Measurement
	for _, p := range measure.Profiles(o.TEE, fw.Kind) {
		if p == measure.KrunfwTool {
			continue // host kernels that no current libkrun runs on
		}
		r, err := prepared.Digest(p, measure.Shape{CPUs: uint(o.CPUs), MemoryMiB: o.MemoryMiB})
		if err != nil {
			return nil, fmt.Errorf("measuring for %s: %w", p, err)
		}
		list = append(list, kbs.Measurement{
			LaunchDigest: r, Profile: string(p), CPUs: uint(o.CPUs), MemoryMiB: o.MemoryMiB,
			Firmware: hex.EncodeToString(fw.Digest[:]),
		})
	}
	return list, nil
}
