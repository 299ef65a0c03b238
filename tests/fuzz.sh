#!/bin/bash
# usage: fuzz.sh TIME    runs every fuzz target for TIME, one after the other
set -euo pipefail
time=${1:?usage: fuzz.sh TIME}
while read -r pkg dir; do
	while read -r target; do
		echo "== $pkg $target" >&2
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg"
	done < <(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go 2>/dev/null | awk '{print $2}')
done < <(go list -f '{{.ImportPath}} {{.Dir}}' ./...)
