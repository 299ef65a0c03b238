#!/bin/bash
# usage: sim-firmware.sh CCRUN-SIM DIR
# Makes the simulator's firmware in DIR from Debian's current cloud kernel,
# which is downloaded but not installed.
set -euo pipefail
sim=$(realpath "$1") out=$(realpath -m "$2")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"

kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n1)
if [[ -z "$kernel" ]]; then
	apt-get update -qq
	kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n1)
fi
: "${kernel:?sim-firmware: apt knows no linux-image-cloud-amd64; is this Debian on amd64?}"
apt-get download -qq "$kernel" 2>/dev/null || { apt-get update -qq && apt-get download -qq "$kernel"; }
dpkg-deb -x ./*.deb k

mkdir -p "$(dirname "$out")"
"$sim" firmware --kernel k/boot/vmlinuz-* --modules k/lib/modules/* --output "$out"
