#!/bin/bash
# usage: kernel.sh DIR
# Fetches Debian's current cloud kernel, which is not installed, and leaves in
# DIR what `ccrun-sim firmware` makes firmware of: vmlinuz and modules. What is
# there already is kept, so that a second time needs no network.
set -euo pipefail
out=$(realpath -m "$1")
[[ ! -e $out/vmlinuz ]] || exit 0

mkdir -p "$out"
work=$(mktemp -d "$out/.new-XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"

# newest is the package that linux-image-cloud-amd64 stands for today.
newest() {
	apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n1
}
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
	echo "kernel: this is no Debian; name a kernel and its modules: --kernel FILE --modules DIR" >&2
	exit 1
fi
# Another suite's list may name a package that is not there any more.
{ kernel=$(newest) && [[ -n $kernel ]] && apt-get download -qq "$kernel" 2>/dev/null; } || {
	apt-get update -qq
	kernel=$(newest)
	: "${kernel:?kernel: apt knows no linux-image-cloud-amd64; name a kernel and its modules: --kernel FILE --modules DIR}"
	apt-get download -qq "$kernel"
}
dpkg-deb -x ./*.deb k
rm -rf "$out/modules"
mv k/lib/modules/* "$out/modules"
mv k/boot/vmlinuz-* "$out/vmlinuz" # last: it says that all is there
