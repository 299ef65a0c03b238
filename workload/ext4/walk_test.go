package ext4

import (
	"encoding/binary"
	"testing"
)

// walkExtents reads an extent tree back, checking headers, checksums and order.
func walkExtents(t *testing.T, node, blocks []byte, tree uint64) (out []extent) {
	t.Helper()
	le := binary.LittleEndian
	if le.Uint16(node) != extentMagic {
		t.Fatalf("bad magic %x", node[:2])
	}
	entries, limit, depth := int(le.Uint16(node[2:])), int(le.Uint16(node[4:])), le.Uint16(node[6:])
	if entries > limit || 12+12*limit > len(node) {
		t.Fatalf("%d entries of %d", entries, limit)
	}
	if len(node) == blockSize && le.Uint32(node[extentTailOff:]) != crc(7, node[:extentTailOff]) {
		t.Fatal("bad checksum")
	}
	for i := range entries {
		e := node[12+12*i:]
		if depth == 0 {
			out = append(out, extent{le.Uint32(e), uint32(le.Uint16(e[4:])), uint64(le.Uint16(e[6:]))<<32 | uint64(le.Uint32(e[8:]))})
			continue
		}
		at := (uint64(le.Uint16(e[8:]))<<32 | uint64(le.Uint32(e[4:]))) - tree
		child := blocks[at*blockSize : (at+1)*blockSize]
		if le.Uint16(child[6:]) != depth-1 {
			t.Fatal("bad depth")
		}
		below := walkExtents(t, child, blocks, tree)
		if below[0].logical != le.Uint32(e) {
			t.Fatal("index does not name its first extent")
		}
		out = append(out, below...)
	}
	return out
}
