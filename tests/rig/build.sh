#!/bin/bash
# usage: build.sh CACHE
# Assembles the rig in CACHE/rig/krun and prints the directory: Debian's crun
# with the krun handler, our stand-in for libkrun, libkrunfw's own kernel, and a
# QEMU that boots it (QEMU 7.2 hung in 1 of 50 boots of machine microvm; 10.0 in
# none: docs/status of the rig, below tests/rig).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(realpath -m "$1")
rig=$cache/rig/krun

# newer SUITE PACKAGE: the package's file, downloaded once.
package() {
	local dir=$cache/rig/$1/deb
	mkdir -p "$dir"
	if ! compgen -G "$dir/$2_*.deb" >/dev/null; then
		(cd "$dir" && "$here/suite.sh" "$cache" "$1" download "$2" >&2)
	fi
	compgen -G "$dir/$2_*.deb" | tail -n1
}

mkdir -p "$rig/log"
ln -sfn "$("$here/root.sh" "$cache" trixie)" "$rig/root"
ln -sfn "$("$here/root.sh" "$cache" bookworm clean)" "$rig/root-clean"
if sid=$("$here/root.sh" "$cache" sid); then ln -sfn "$sid" "$rig/root-sid"; else rm -f "$rig/root-sid"; fi
ln -sfn "$("$here/crun.sh" "$cache")" "$rig/crun"
gcc -shared -fPIC -O1 -Wall -o "$rig/libkrun-sev.so.1" "$here/libkrun.c" -ldl
export GOFLAGS="${GOFLAGS:-} -tags=remote,containers_image_openpgp,exclude_graphdriver_btrfs,nethttpomithttp2"
for program in vmm shim initrd2disk init; do
	flags=()
	[[ $program != init ]] || flags=(-gcflags=all=-l) # as the Makefile makes the agent
	(cd "$here" && go build "${flags[@]}" -ldflags "-s -w" -o "$rig/$program" "./$program")
done
# Without it, and without sid, no machine boots through OVMF here.
if [[ ! -e $rig/OVMF.amdsev.fd ]] && deb=$(package sid ovmf-amdsev) && [[ -n $deb ]]; then
	dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/share/ovmf/OVMF.amdsev.fd >"$rig/OVMF.amdsev.fd.new"
	mv "$rig/OVMF.amdsev.fd.new" "$rig/OVMF.amdsev.fd"
fi
if [[ ! -e $rig/libkrunfw-sev.so.5 ]]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	deb=$(package sid libkrunfw5)
	dpkg-deb -x "$deb" "$work"
	gcc -O1 -Wall -o "$work/kernel" "$here/mkfw/kernel.c" -ldl
	load=$("$work/kernel" "$work"/usr/lib/*/libkrunfw.so.5 "$work/flat")
	(cd "$here" && go run ./mkfw "$work/flat" "$load" "$rig/libkrunfw-sev.so.5")
fi
echo "$rig"
