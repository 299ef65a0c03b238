package btrfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// TestSlack: what no item and no file uses is zero, though buffers are used
// again: bytes of one file never stand behind those of another.
func TestSlack(t *testing.T) {
	var files []rootfstest.File
	for i := range 3000 {
		files = append(files, rootfstest.Regular(fmt.Sprint("f", i), bytes.Repeat([]byte{0xa5}, i*7%5000)))
	}
	files = append(files, rootfstest.Regular("large", bytes.Repeat([]byte{0x5a}, 3<<20+1)))
	l, err := plan(rootfstest.Tree(t, rootfstest.Tar(t, files)), testOptions, small)
	if err != nil {
		t.Fatal(err)
	}
	var img bytes.Buffer
	if err := l.WriteTo(context.Background(), &img); err != nil {
		t.Fatal(err)
	}
	unused := func(what string, from, to uint64) {
		if i := bytes.IndexFunc(img.Bytes()[from:to], func(r rune) bool { return r != 0 }); i >= 0 {
			t.Errorf("%s: byte %d of %d to %d is not zero", what, i, from, to)
		}
	}
	for _, n := range l.nodes {
		b := img.Bytes()[n.at:][:nodeSize]
		items := uint64(binary.LittleEndian.Uint32(b[itemsOffset:]))
		used, data := headerBytes+items*pointerBytes, uint64(nodeSize)
		if n.level == 0 {
			if used = headerBytes + items*itemBytes; items > 0 {
				data = headerBytes + uint64(binary.LittleEndian.Uint32(b[used-8:]))
			}
		}
		unused(fmt.Sprint("node of tree ", n.owner), n.at+used, n.at+data)
	}
	for _, c := range l.space.chunks {
		unused("chunk", c.end(), c.start+c.length)
	}
	for i := range l.inodes {
		in, rest := &l.inodes[i], uint64(l.inodes[i].node.Size)
		err := l.eachExtent(in, func(e extent) error {
			n := min(rest, e.length)
			rest -= n
			unused("file", e.at+n, e.at+e.length)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestExtents: the pieces of a file are as large as can be and no larger, one
// after the other.
func TestExtents(t *testing.T) {
	for _, limits := range []limits{defaultLimits(), small} {
		l, err := plan(rootfstest.Tree(t, rootfstest.Generated{Dirs: 1, Files: 3, Size: 300<<20 + 1}), testOptions, limits)
		if err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		for i := range l.inodes {
			end := uint64(0)
			err := l.eachExtent(&l.inodes[i], func(e extent) error {
				if e.offset != end || e.length > limits.extent || e.length == 0 || e.at < last {
					t.Errorf("%+v after %d, at %d", e, end, last)
				}
				end, last = e.offset+e.length, e.at+e.length
				return nil
			})
			if want := roundUp(uint64(l.inodes[i].node.Size), sectorSize); err != nil || end != want {
				t.Errorf("extents of %d bytes, want %d (%v)", end, want, err)
			}
		}
	}
}
