package btrfs

import (
	"errors"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// inlineLimit is the largest file whose content stands among the metadata.
const inlineLimit = 2048

func isInline(n *rootfs.Node) bool {
	data, sparse := n.Data()
	return n.Kind == rootfs.Regular && n.Size > 0 && n.Size <= inlineLimit && (!sparse || len(data) > 0)
}

var errNoPlace = errors.New("data has no place on the disk (a bug in this package)")

// span is a run of bytes of a file, in whole sectors.
type span struct{ offset, length uint64 }

// dataRuns are where a regular file has data.
func dataRuns(n *rootfs.Node) []span {
	if n.Kind != rootfs.Regular {
		return nil
	}
	ranges, sparse := n.Data()
	if !sparse {
		if n.Size == 0 {
			return nil
		}
		return []span{{0, roundUp(uint64(n.Size), sectorSize)}}
	}
	runs := make([]span, len(ranges))
	for i, r := range ranges {
		runs[i] = span{uint64(r.Offset), roundUp(uint64(r.Length), sectorSize)}
	}
	return runs
}

// extent is data that lies together in the file and on the disk.
type extent struct {
	at uint64
	span
}

// eachExtent follows a file's data. The extents are not kept but worked out
// from where the first begins and how the disk was cut into chunks: most files
// have one.
func (l *Layout) eachExtent(in *inode, f func(extent) error) error {
	if isInline(in.node) {
		return nil
	}
	at := in.data
	for _, run := range dataRuns(in.node) {
		for run.length > 0 {
			from, n := l.space.run(at, min(run.length, l.space.extent))
			if n == 0 {
				return errNoPlace
			}
			if err := f(extent{from, span{run.offset, n}}); err != nil {
				return err
			}
			at = from + n
			run = span{run.offset + n, run.length - n}
		}
	}
	return nil
}

const (
	inlineExtent  = 0
	regularExtent = 1
)

func (l *Layout) extentData(slot int32, e extent, put putFunc) error {
	return put(key{inoOf(slot), extentData, e.offset},
		extentHead(l.buf[:0], e.length, regularExtent).u64(e.at, e.length, 0, e.length))
}

func (l *Layout) inlineItem(slot int32, content []byte, put putFunc) error {
	return put(key{inoOf(slot), extentData, 0},
		extentHead(l.buf[:0], uint64(len(content)), inlineExtent).bytes(content))
}

func extentHead(r record, length uint64, kind uint8) record {
	return r.u64(generation, length).u8(0).u8(0).u16(0).u8(kind) // neither compressed nor encrypted
}
