#!/bin/bash
# usage: make-image.sh CACHE-DIR IMAGE
# Makes IMAGE in Podman's storage: a base layer from Debian's packages, which
# are downloaded once into CACHE-DIR and not installed, and a layer on top.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(realpath -m "$1") image=$2
base=localhost/ccrun-demo/debian-nginx
packages=(nginx nginx-common libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g base-files base-passwd)

if [[ ! -s "$cache/debian-nginx.tar" ]]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	mkdir -p "$cache" "$work/root" "$work/debs"
	chmod 755 "$work" "$work/debs"
	(cd "$work/debs" && { apt-get download -qq "${packages[@]}" 2>/dev/null || { apt-get update -qq && apt-get download -qq "${packages[@]}"; }; })
	for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
	cp "$work/root/usr/share/base-passwd/passwd.master" "$work/root/etc/passwd"
	cp "$work/root/usr/share/base-passwd/group.master" "$work/root/etc/group"
	tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner -cf "$cache/debian-nginx.tar.tmp" .
	mv "$cache/debian-nginx.tar.tmp" "$cache/debian-nginx.tar"
fi
podman image exists "$base" || podman --log-level error import -q "$cache/debian-nginx.tar" "$base" >/dev/null
podman --log-level error build -q --network none -t "$image" -f "$here/Containerfile" "$here" >/dev/null
