#!/bin/bash
# usage: root.sh CACHE SUITE [clean]
# Makes a root file system of another suite of Debian, with Podman, QEMU and
# systemd, and prints its path: the Podman and the QEMU of today, on a machine
# that has older ones. Made once for a list of packages. With clean, nothing but
# what every Debian has is in it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(realpath -m "$1") suite=$2
root=$cache/rig/$suite/root${3:+-$3}

packages=(
	ca-certificates podman crun conmon catatonit netavark aardvark-dns nftables iptables iproute2 procps
	qemu-system-x86 seabios systemd systemd-sysv dbus e2fsprogs cpio skopeo busybox-static curl
)
[[ ${3:-} != clean ]] || packages=(ca-certificates)
include=$(IFS=,; echo "${packages[*]}")
if [[ $(cat "$root.complete" 2>/dev/null) != "$include" ]]; then
	rm -rf "$root" "$root.complete"
	mkdir -p "$(dirname "$root")"
	debootstrap --variant=minbase --include="$include" "$suite" "$root" "$("$here/archive.sh")" >"$root.log" 2>&1 || {
		tail -n 5 "$root.log" >&2
		echo "root.sh: no root of Debian's suite $suite could be made; the whole log: $root.log" >&2
		exit 1
	}
	rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
	echo "$include" >"$root.complete"
fi
echo "$root"
