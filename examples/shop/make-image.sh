#!/bin/bash
# usage: make-image.sh CACHE-DIR [IMAGE]
# Makes the image CACHE-DIR/image, an OCI layout: a base layer from Debian's
# packages, which are downloaded once into CACHE-DIR and not installed, and a
# layer on top. It is kept: Podman takes longer to make it than a VM to boot. With
# IMAGE, the base alone is made, in Podman's storage and under that name.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(realpath -m "$1") base=${2:-localhost/ccrun-demo/debian-nginx}
of=$(cat "$here"/{make-image.sh,Containerfile,nginx.conf,index.html} | sha256sum)
[[ $# -gt 1 || $of != "$(cat "$cache/image/of" 2>/dev/null)" ]] || exit 0
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
[[ $# -eq 1 ]] || exit 0
podman --log-level error build -q --layers=false --network none -t localhost/shop -f "$here/Containerfile" "$here" >/dev/null
rm -rf "$cache/image" "$cache/image.tmp"
podman save -q --format oci-dir -o "$cache/image.tmp" localhost/shop
echo "$of" >"$cache/image.tmp/of"
mv "$cache/image.tmp" "$cache/image"
