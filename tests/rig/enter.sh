#!/bin/bash
# usage: enter.sh RIG DIR COMMAND...
# Runs COMMAND where the runtime krun finds the rig: in a private mount
# namespace with /etc/ccrun/krun.json, a /dev/sev and a /dev/kvm of its own, and
# in a network namespace of its own, which containers join as DIR/netns, because
# the runtime refuses to share the host's. DIR holds what that takes. Nothing of
# the host is changed but for the empty directory /etc/ccrun.
set -euo pipefail
if [[ ${CCRUN_RIG_ENTERED:-} != 1 ]]; then
	export CCRUN_RIG_ENTERED=1
	mkdir -p /etc/ccrun
	exec unshare --mount --net --propagation private "$0" "$@"
fi
rig=$1 dir=$2
shift 2

ip link set lo up
touch "$dir/netns"
mount --bind /proc/self/ns/net "$dir/netns"

mkdir -p "$dir/etc" "$dir/dev"
mount --bind "$dir/etc" /etc/ccrun
echo "{\"crun\":\"$rig/shim\",\"library\":\"$rig/libkrunfw-sev.so.5\"}" >/etc/ccrun/krun.json

mount -t tmpfs tmpfs "$dir/dev"
mkdir "$dir"/dev/{up,work}
# Whatever this machine has: its KVM would say that it makes no SNP machines.
for node in sev kvm; do cp -a /dev/null "$dir/dev/up/$node"; done
# The overlay hides what is mounted below /dev: take that along.
mount -t overlay overlay -o "lowerdir=/dev,upperdir=$dir/dev/up,workdir=$dir/dev/work" "$dir/dev"
for below in pts shm mqueue; do
	mkdir -p "$dir/dev/$below"
	if mountpoint -q "/dev/$below"; then mount --bind "/dev/$below" "$dir/dev/$below"; fi
done
mount --move "$dir/dev" /dev 2>/dev/null || mount --rbind "$dir/dev" /dev
# As initramfs-tools of Debian and Ubuntu mount it.
if [[ ${CCRUN_RIG_NOEXEC_RUN:-} == 1 ]]; then
	if mountpoint -q /run; then mount -o remount,bind,nosuid,nodev,noexec /run; else
		mount --bind /run /run && mount -o remount,bind,nosuid,nodev,noexec /run
	fi
fi
export CCRUN_RIG_NETNS=$dir/netns
exec "$@"
