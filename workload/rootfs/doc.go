// Package rootfs merges the layers of an OCI image into one tree, in memory
// and without root, as containers/storage would apply them to a directory.
// Only metadata is held; contents are streamed from the layers in a second
// pass, so that a file system writer can lay out the disk before it sees the
// first byte of data.
//
// # How layers are applied
//
// The rules are those of the OCI image specification (layer.md) and, where it
// is silent, of containers/storage's UnpackLayer running chrooted:
//
//   - Names are cleaned and clamped: "/etc/x", "./etc/x" and "../../etc/x" all
//     mean etc/x below the root. The last component is never followed. A parent
//     that is a symbolic link, absolute or not, is resolved inside the tree, as
//     a chroot would; the host is never looked at. So a layer that says lib/x on
//     a base with lib -> usr/lib writes usr/lib/x. Missing parents, a dangling
//     link's target included, become directories (0755, root, time zero).
//   - A parent that is neither directory nor link is replaced if a lower layer
//     made it (so does overlayfs) and refused if the same layer did.
//   - An entry replaces what had its name; only a directory over a directory
//     keeps the children and replaces the metadata. The last of duplicates wins.
//   - Whiteouts (".wh.NAME") and opaque markers (".wh..wh..opq") hide what lower
//     layers brought, wherever in their own layer they stand, and never what
//     their own layer brings. They make no parent directories. Other AUFS files
//     at the root (".wh..wh.*") are skipped.
//   - A hard link names an inode, of this layer or of a lower one; the inode
//     lives as long as any name does. The link's header updates owner, mode, time
//     and extended attributes, as UnpackLayer does.
//   - Extended attributes come from SCHILY.xattr.* records. security.selinux is
//     left out (it describes the build host's policy; containers/storage does
//     the same), and so is what no Linux file system would take: unknown
//     namespaces, and user.* on anything but files and directories. The latter
//     are reported by Tree.Warnings.
//
// Contents that GNU or PAX headers mark as sparse are read once while scanning,
// to learn where the data is: archive/tar does not tell.
package rootfs
