#!/bin/bash
# usage: systemd.sh ROOT DIR PATH:PATH... [INIT-ARGUMENT...]
# Boots the root file system ROOT: its systemd is PID 1 in mount, PID, network,
# cgroup, IPC and UTS namespaces of its own, without a network but lo. What is
# written goes to DIR and is there at the next boot; ROOT stays as it is. The
# PATHs of this machine, colon-separated, are at their own places inside. Whoever
# kills its PID 1 kills all of it at once, as a power cut would.
#
#        systemd.sh remove DIR
# Removes the control groups that are left of it.
set -euo pipefail
case ${CCRUN_RIG_MACHINE:-} in
"")
	export CCRUN_RIG_MACHINE=cgroup
	exec unshare --mount --propagation private "$0" "$@"
	;;
cgroup)
	# systemd gets a part of the version 2 hierarchy as the whole. Where that is
	# mounted, if anywhere, differs.
	mount -t tmpfs tmpfs /mnt
	mkdir /mnt/cgroup
	mount -t cgroup2 cgroup2 /mnt/cgroup
	own=/mnt/cgroup/ccrun-rig-$(sha256sum <<<"$2" | cut -c1-12)
	if [[ -d $own ]]; then find "$own" -depth -type d -exec rmdir {} +; fi
	[[ $1 != remove ]] || exit 0
	mkdir "$own"
	echo $$ >"$own/cgroup.procs"
	umount -l /mnt
	export CCRUN_RIG_MACHINE=init
	exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child --propagation private "$0" "$@"
	;;
esac
root=$1 dir=$2 paths=$3
shift 3

mkdir -p "$dir"/{upper,work,root,containers}
mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
new=$dir/root
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
mount -t tmpfs -o mode=0755,nosuid tmpfs "$new/dev"
for node in null zero full random urandom tty; do
	touch "$new/dev/$node"
	mount --bind "/dev/$node" "$new/dev/$node"
done
mkdir "$new"/dev/{pts,shm,mqueue}
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$new/dev/pts"
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
mount -t tmpfs -o nosuid,nodev tmpfs "$new/dev/shm"
mount -t mqueue mqueue "$new/dev/mqueue"
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$new/run"
mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
# An overlay cannot hold the layers of another.
mkdir -p "$new/var/lib/containers"
mount --bind "$dir/containers" "$new/var/lib/containers"
IFS=: read -ra list <<<"$paths"
for p in "${list[@]}"; do
	if [[ -d $p ]]; then mkdir -p "$new$p"; else mkdir -p "$new${p%/*}" && touch "$new$p"; fi
	mount --bind "$p" "$new$p"
done
ip link set lo up
hostname rig
cd "$new"
mkdir -p .old
pivot_root . .old
umount -l /.old
mount --make-rshared / # as systemd wants it of whoever makes a container
exec env -i container=ccrun-rig PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --log-target=console "$@"
