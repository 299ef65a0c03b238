// Package erofs writes a rootfs.Tree as a read-only, uncompressed EROFS file
// system, as one strictly sequential stream of exactly the planned size, with
// metadata only in memory and nothing on disk.
//
// # Why our own writer
//
// github.com/erofs/go-erofs v0.3.1 was looked at first: its Writer needs an
// io.WriteSeeker and a spool file on disk, copies hard links (there is no
// Link), and learns sizes only while data arrives. mkfs.erofs wants a directory
// or tar, a seekable output, and is an outside program. go-erofs's reader is
// used by this package's tests.
//
// # Layout
//
// 4096-byte blocks, 64-byte (extended) inodes with inline attributes, no shared
// attributes, superblock with crc32c; any kernel since 5.4 mounts it, since 5.15
// if the tree has sparse files. In this order:
//
//	superblock
//	inodes of everything but plain regular files, root first, small
//	  directories and link targets inline
//	blocks of larger directories
//	file data in the order of Tree.Contents: each file's whole blocks; its
//	  inode and the rest of its data share a block with its neighbours'
//
// A block of inodes is written when it is full, so it stands right after the
// data of its files, and no space is lost to partly filled blocks. Files
// stored sparsely in the layer become chunk-based inodes whose holes take no
// space.
package erofs
