// Package btrfs writes a rootfs.Tree as a BTRFS file system for reading only (a
// "seed"), as one strictly sequential stream of exactly the planned size, with
// metadata only in memory and nothing on disk. A guest mounts it, adds a second
// device, and from then on everything that is written goes there: BTRFS never
// writes to a seed.
//
// # Why our own writer
//
// mkfs.btrfs --rootdir wants a directory, a seekable output and root's rights
// for owners, is an outside program, and leaves much room that a seed has no use
// for. No Go package writes BTRFS.
//
// # Layout
//
// One device, one subvolume; 4096-byte sectors, 16 KiB nodes; crc32c over nodes
// and data; no redundancy (profile "single"), no compression, no holes as items
// (no-holes), skinny metadata, a free space tree. Linux 5.15 and later mount and
// sprout it. Logical addresses are those on the disk. In this order:
//
//	1 MiB that belongs to boot loaders; the superblock at 64 KiB
//	data chunk: file data in the order of Tree.Contents
//	metadata chunk: leaves of the file tree and of the checksum tree that were
//	  completed while that data was written
//	... more such pairs
//	metadata chunk: the upper nodes of these, and all other trees
//	system chunk: the chunk tree
//
// What makes one stream of it is that BTRFS does not put checksums into parents
// or the superblock, and that inode numbers are free: they go up in the order of
// Tree.Contents, what is no regular file before. So a leaf is complete as soon
// as the data of its files has gone by, inline content and all, and stands right
// after it. A chunk of data ends after 1 GiB, or when 8 MiB of leaves wait;
// what lies between is at most 60 KiB a chunk. Chunks end before the copies of
// the superblock at 64 MiB and 256 GiB, and begin again after them.
//
// Files of up to 2048 bytes are inline, as the kernel would have them. Others
// have extents of at most 128 MiB.
package btrfs
