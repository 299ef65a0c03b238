#!/bin/bash
# usage: e2e.sh CACHE [TEST...]
# Runs the end-to-end tests, or those named, each in a process of its own and as
# many at once as there are processors: one guest under TCG keeps one of them
# busy. A slot has a rig and a simulated platform of its own; Podman's storage
# is everybody's. What a test said is in CACHE/e2e/TEST.log, and shown if it
# failed. `make test-e2e` calls it with the environment that it needs.
set -euo pipefail
export cache logs binary
cache=$(realpath -m "$1")
cd "$(dirname "$0")"
logs=$cache/e2e
binary=$logs/tests.test
shift

# one TEST: in the slot that xargs has given.
one() {
	local slot=$SLOT log=$logs/$1.log start=$SECONDS status=0
	export CCRUN_RIG=$cache/rig/e2e-$slot CCRUN_SIM_ROOT=$logs/platform-$slot
	./podman-env.sh "$binary" -test.v -test.timeout 30m -test.run "^$1\$" >"$log" 2>&1 || status=$?
	exec 9>"$logs/lock"
	flock 9
	if ((status)); then
		cat "$log"
		echo "FAILED $1 ($((SECONDS - start)) s)" | tee -a "$logs/failed"
	else
		grep -E '^ *--- (PASS|SKIP)' "$log" || true
	fi
}
export -f one

jobs=${CCRUN_E2E_JOBS:-$(nproc)}
rm -rf "$logs"
mkdir -p "$logs"
: >"$logs/failed"
git rev-parse --short HEAD >"$logs/commit" 2>/dev/null || rm -f "$logs/commit" # `make status` reads it
${GO:-go} test -c -o "$binary" .
for ((i = 0; i < jobs; i++)); do
	rm -rf "$cache/rig/e2e-$i"
	cp -a "$cache/rig/krun" "$cache/rig/e2e-$i"
done
# The longest first, so that none of them is left for the end.
long=(TestDebian13 TestScratch TestHostileHost TestVolumes TestKrun TestRoom TestHostileMachine TestCorpus)
if (($#)); then tests=("$@"); else
	mapfile -t tests < <(printf '%s\n' "${long[@]}" && "$binary" -test.list '^Test' | grep -vxF "$(printf '%s\n' "${long[@]}")")
fi
printf '%s\n' "${tests[@]}" | xargs -P "$jobs" -n 1 --process-slot-var=SLOT bash -c 'one "$1"' one
if [[ -s $logs/failed ]]; then
	echo "e2e: failed, their words are above and in $logs:" && cat "$logs/failed"
	exit 1
fi
