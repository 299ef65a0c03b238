#!/bin/sh
# Prints the first archive of Debian's own packages among this machine's sources.
set -eu
from=$(find /etc/apt -maxdepth 2 \( -name '*.list' -o -name '*.sources' \) -exec \
	sed -nE 's/^URIs: *([^ ]+)$/\1/p; s/^deb (\[[^]]*\] )?([^ ]+) .*/\2/p' {} + |
	grep -m1 -E '/debian/?$') || {
	echo "archive.sh: no archive of Debian among the sources of apt on this machine" >&2
	exit 1
}
echo "$from"
