// Package ext4 writes a rootfs.Tree as a writable ext4 file system, as one
// strictly sequential stream of exactly the planned size. Nothing is written to
// disk by this package and memory holds metadata only.
//
// # Why our own writer
//
// What there is was looked at first. hcsshim's tar2ext4 makes read-only images
// without free space, journal or UUID, which e2fsck rejects (exit 4), from one
// tar. diskfs/go-diskfs needs a device to seek in, writes inode tables and
// bitmaps eagerly, and its ext4 writer is young (multi-gigabyte file systems
// failed in 2026). containerd/continuity makes empty file systems. mke2fs -d
// wants a directory or a tar in a file, a seekable output and root's rights for
// owners, and would be an outside program. None streams.
//
// # Layout
//
// 4096-byte blocks, 256-byte inodes, extents, 64bit, flex_bg, metadata_csum
// (crc32c), dir_index (half-MD4, directories over one block), and a journal.
// flex_bg lets all bitmaps and inode tables sit at the front, so the disk is, in
// this order:
//
//	superblock, group descriptors
//	block bitmaps, inode bitmaps, inode tables
//	directories, long symlinks, attribute blocks (in inode order)
//	journal (empty)
//	file data in the order of Tree.Contents, each file's extent tree before it
//	free space (zeros)
//
// Copies of superblock and descriptors lie where sparse_super wants them, and
// data is planned around them. There are no reserved blocks (the workload is
// alone on its disk) and no reserved descriptors (it is not resized): the
// kernel's online resize can still use meta_bg.
//
// # Size
//
// With Options.SizeBytes zero, the file system gets its content plus
// Options.FreeBytes free space, by default 1 % of the content and at least
// 4 MiB, rounded up to 64 KiB; inodes for 1 % more files than the tree has, and
// one per 16 KiB of free space; and a journal of 1/256 of it all, at least 4 MiB.
// With a size given, inodes and journal are mke2fs's: one per 16 KiB, and 16 MiB
// from 128 MiB on, 32 from 1 GiB, 64 from 2 GiB.
package ext4
