// Package ext4read turns an ext4 file system into a tar stream, so that a
// foreign workload disk can be built anew like any layer.
//
// The file system is hostile: a disk of `buildah mkcw` has no integrity, so
// whoever stored it may have changed it. Everything is bounded before it is
// allocated, every block number is checked against the size, a directory is
// entered once.
//
// # Why our own reader
//
// masahiro331/go-ext4-filesystem loses hard links, attributes and owners behind
// fs.FS. diskfs/go-diskfs needs a block device to open and reads whole tables;
// hcsshim has a writer only, gVisor dropped its reader in 2023. What is needed
// here, one pass over what mke2fs -d writes, is less than their adapters.
//
// Supported is what mke2fs writes by default: extents, 64bit, flex_bg,
// metadata_csum (not checked: it authenticates nothing), attributes. What is
// refused: an unclean journal, indirect blocks, inline data, encryption,
// bigalloc, attributes in inodes of their own.
package ext4read
