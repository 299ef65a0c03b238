#!/bin/bash
# usage: suite.sh CACHE SUITE APT-GET-ARGUMENT...
# Runs apt-get for another suite of Debian (trixie, forky, sid, ...) in a private
# tree below CACHE: this machine's packages and lists are neither read nor
# changed. The archive is the one that this machine uses.
set -euo pipefail
cache=$1 suite=$2
shift 2

here=$(cd "$(dirname "$0")" && pwd)
dir=$(realpath -m "$cache")/apt/$suite
from=$("$here/archive.sh")
mkdir -p "$dir"/etc/apt/{sources.list.d,preferences.d,apt.conf.d,trusted.gpg.d} \
	"$dir"/var/lib/apt/lists/partial "$dir"/var/cache/apt/archives/partial "$dir"/var/lib/dpkg
touch "$dir/var/lib/dpkg/status"
for kind in deb deb-src; do
	echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from $suite main"
done >"$dir/etc/apt/sources.list"

options=(-qq -o "Dir=$dir" -o Dir::Etc::main=/dev/null -o "Dir::State::status=$dir/var/lib/dpkg/status"
	-o APT::Sandbox::User=root -o Acquire::Retries=2 -o APT::Install-Recommends=false)
# Once a day is enough, and the second run may be offline.
if [[ -z $(find "$dir/updated" -mtime -1 2>/dev/null) ]]; then
	if apt-get "${options[@]}" update; then
		touch "$dir/updated"
	elif [[ ! -e $dir/updated ]]; then
		echo "suite.sh: the lists of Debian's suite $suite cannot be had" >&2
		exit 1
	fi
fi
exec apt-get "${options[@]}" "$@"
