#!/bin/bash
# usage: crun.sh CACHE
# Builds crun with the krun handler from Debian's source package, because
# Debian's own binary has none, and prints the path of the binary. The handler
# opens libkrun when it runs: to compile it, an empty libkrun.h is enough.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(realpath -m "$1")
suite=${CRUN_SUITE:-trixie}
out=$cache/rig/$suite/crun

if [[ ! -x $out ]]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	# Of a suite that moves the .dsc may be gone while the tarball is there.
	"$here/suite.sh" "$cache" "$suite" source --download-only --tar-only crun
	tar -xf crun_*.orig.tar.* --strip-components 1
	mkdir include && : >include/libkrun.h
	CPPFLAGS=-I$work/include ./configure -q --with-libkrun --enable-embedded-yajl --disable-criu --disable-bpf >&2
	make -s .version git-version.h >&2
	# Debian's next suite has no libyajl any more.
	make -s -C libocispec/yajl libyajl.la >&2
	make -s -j"$(nproc)" crun >&2
	./crun --version | grep -q -- '+LIBKRUN' || { echo "crun.sh: what was built has no krun handler" >&2; exit 1; }
	mkdir -p "$(dirname "$out")"
	install -m 0755 crun "$out.new"
	mv "$out.new" "$out"
fi
echo "$out"
