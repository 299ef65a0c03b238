package workload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/btrfs"
	"github.com/ccrun/ccrun/workload/erofs"
	"github.com/ccrun/ccrun/workload/ext4"
	"github.com/ccrun/ccrun/workload/rootfs"
)

const fsLabel = "ccrun"

// fileSystem is a laid out file system, ready to be streamed: its size, and
// with it everything that is measured, is known before its first byte.
type fileSystem interface {
	SizeBytes() int64
	WriteTo(ctx context.Context, w io.Writer) error // exactly SizeBytes, in order
}

// layOut plans the file system, so that its size is known.
func (o *DiskOptions) layOut(tree *rootfs.Tree, id [sha256.Size]byte, at time.Time) (fileSystem, error) {
	uuid, seed := [16]byte(id[:16]), [16]byte(id[16:])
	uuid[6], uuid[8] = uuid[6]&0x0f|0x80, uuid[8]&0x3f|0x80 // RFC 9562, version 8
	var fs fileSystem
	var err error
	switch o.Filesystem {
	case "erofs":
		fs, err = erofs.Plan(tree, erofs.Options{UUID: uuid, Label: fsLabel, Time: at})
	case "btrfs":
		fs, err = btrfs.Plan(tree, btrfs.Options{UUID: uuid, Label: fsLabel, Time: at})
	default:
		free := o.FreeBytes
		if !o.writable && o.SizeBytes == 0 {
			free = 4096
		}
		fs, err = ext4.Plan(tree, ext4.Options{
			SizeBytes: o.SizeBytes, FreeBytes: free, UUID: uuid, HashSeed: seed,
			Label: fsLabel, Time: at, Journal: o.writable,
		})
	}
	if errors.Is(err, ext4.ErrTooSmall) {
		return nil, hint.With(err, "give a larger --size, or none: then the disk is as large as its content asks for")
	}
	if err != nil {
		return nil, err
	}
	return fs, nil
}

// contentID names the file system after all it is made from. It is no secret:
// what is written under it is.
func (o *DiskOptions) contentID(diffIDs []digest.Digest, process []byte, at time.Time) ([sha256.Size]byte, error) {
	in := struct {
		Label   string          `json:"label"`
		DiffIDs []digest.Digest `json:"diff_ids"`
		Process kbs.Digest      `json:"process"`
		System  string          `json:"file_system"`
		Size    int64           `json:"size_bytes"`
		Free    int64           `json:"free_bytes"`
		Time    int64           `json:"time"`
	}{"ccrun file system v1", append([]digest.Digest{}, diffIDs...), kbs.Sum384(process), o.Filesystem, o.SizeBytes, o.FreeBytes, at.Unix()}
	j, err := kbs.Canonical(in)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("naming file system: %w", err)
	}
	return sha256.Sum256(j), nil
}
