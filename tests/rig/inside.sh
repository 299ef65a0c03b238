#!/bin/bash
# usage: inside.sh ROOT DIR PATH:PATH... COMMAND...
# Runs COMMAND in the root file system ROOT, in mount and PID namespaces of its
# own, with this machine's devices and network, and with the PATHs of this
# machine, colon-separated, at their own places. What is written elsewhere goes
# to memory and is lost: ROOT stays as it is. DIR is an empty directory.
set -euo pipefail
if [[ $$ -ne 1 ]]; then
	exec unshare --mount --pid --fork --kill-child --propagation private "$0" "$@"
fi
root=$1 dir=$2 paths=$3
shift 3

mount -t tmpfs tmpfs "$dir"
mkdir "$dir"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
new=$dir/root
mount --rbind /dev "$new/dev"
mount --rbind /sys "$new/sys"
mount -t proc proc "$new/proc"
mount -t tmpfs -o mode=0755 tmpfs "$new/run"
IFS=: read -ra list <<<"$paths"
for p in "${list[@]}"; do
	mkdir -p "$new$p"
	mount --rbind "$p" "$new$p"
done
here=$PWD
cd "$new"
mkdir -p .old
pivot_root . .old
umount -l /.old
rmdir /.old
cd "$here"
"$@" # not exec: PID 1 reaps, and everything ends with it
