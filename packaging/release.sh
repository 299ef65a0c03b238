#!/bin/bash
# usage: release.sh BIN DIST
# Packs what `make build` put into BIN as .deb and .rpm packages, with manual
# pages, completions, a bill of materials and checksums, into DIST. The same
# commit gives the same bytes. RELEASE_KEY, an SSH key's file, signs the
# checksums (ssh-keygen -Y verify reads the signature); VERSION overrides what
# the tag says.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "$1") dist=$(realpath -m "$2")
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.44.0
cyclonedx=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0
# Built once: `go run` looks through its sources at each of twelve calls.
tools=$PWD/.cache/tools/$(sha256sum <<<"$nfpm $cyclonedx" | cut -c1-12)
export LC_ALL=C TZ=UTC GOFLAGS=
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# A tag's own version; otherwise one that sorts by time, and before any tag's.
version() {
	local tag
	if tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then
		echo "${tag#v}" | tr - '~'
	else
		echo "0.0.0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=10 HEAD)"
	fi
}
VERSION=${VERSION:-$(version)}
export VERSION

for tool in $nfpm $cyclonedx; do
	[[ -x $tools/$(basename "${tool%@*}") ]] || GOBIN=$tools CGO_ENABLED=0 go install "$tool"
done

rm -rf "$dist"
work=$dist/.work
mkdir -p "$work"/{doc,systemd,conf}
trap 'rm -rf "$work"' EXIT

packaging/pages.sh "$bin" "$work"
sed 's,/usr/local/bin/,/usr/bin/,g' packaging/systemd/attest-server.service >"$work/systemd/attest-server.service"
cp packaging/systemd/attest-server.socket "$work/systemd/"
cp -r packaging/systemd/attest-server.service.d "$work/doc/"
cp LICENSE "$work/doc/copyright"
gzip -9n <CHANGELOG.md >"$work/doc/changelog.gz"
printf '[engine.runtimes]\nkrun = ["/usr/libexec/ccrun/krun"]\n' >"$work/conf/ccrun.conf"
printf '[engine.runtimes]\nkrun-sim = ["/usr/libexec/ccrun/krun-sim"]\n' >"$work/conf/ccrun-sim.conf"
find "$work" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

export BIN=$bin WORK=$work
each() { xargs -P "$(nproc)" -L 1 "$@" >&2; }
for package in ccrun ccrun-edge attest-server ccrun-sim; do
	sed -e "s,@VERSION@,$VERSION,g; s,@BIN@,$bin,g; s,@WORK@,$work,g" "packaging/nfpm/$package.yaml" >"$work/$package.yaml"
	for kind in deb rpm; do echo --config "$work/$package.yaml" --packager $kind --target "$dist/"; done
done | each "$tools/nfpm" package
for program in ccrun ccrun-init attest-server ccrun-sim; do
	echo -output "$dist/$program.cdx.json" "$bin/$program"
done | each "$tools/cyclonedx-gomod" bin -json -std -noserial
sed -i "s,^    \"timestamp\": \".*\"\,$,    \"timestamp\": \"$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)\"\,," "$dist"/*.cdx.json
(cd "$dist" && sha256sum -- *.deb *.rpm *.cdx.json >SHA256SUMS)
if [[ -n ${RELEASE_KEY:-} ]]; then
	ssh-keygen -q -Y sign -f "$RELEASE_KEY" -n ccrun-release "$dist/SHA256SUMS"
else
	echo "release: not signed: RELEASE_KEY names no SSH key" >&2
fi
ls "$dist" >&2
