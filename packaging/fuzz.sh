#!/bin/bash
# usage: fuzz.sh TIME    runs every fuzz target for TIME, one after the other
set -euo pipefail
time=${1:?usage: fuzz.sh TIME}
for pkg in $(go list ./...); do
	dir=$(go list -f '{{.Dir}}' "$pkg")
	for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go 2>/dev/null | awk '{print $2}'); do
		echo "== $pkg $target" >&2
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg"
	done
done
