#!/bin/bash
# Runs the heavy checks, one after the other, and appends a row for each to
# docs/soak.md. `make soak` calls it with the environment that they need.
# soak.sh TEXT runs those alone whose name has TEXT in it.
set -euo pipefail
cd "$(dirname "$0")/.."
only=${1:-}

# soak WHAT TEST [PACKAGE]: the size is in the test's own last words, "soak: ...".
soak() {
	local what=$1 log size start=$SECONDS result=passed commit
	[[ $what == *"$only"* ]] || return 0
	commit=$(git describe --always --dirty)
	log=$(mktemp)
	${GO:-go} test -count=1 -timeout 6h -v -run "$2" "${3:-./tests}" 2>&1 | tee "$log" || result=failed
	size=$(sed -n 's/.*soak: //p' "$log" | tail -n1)
	echo "| $(date -u +%F) | $commit | $what | ${size:--} | $(((SECONDS - start + 59) / 60)) min | $result |" >>docs/soak.md
	rm -f "$log"
	[[ $result == passed ]]
}

soak "corpus, ext4 and erofs" '^TestCorpus$'
soak "all, Podman of Debian 13" '^TestDebian13$'
soak "the newest Podman of Debian" '^TestDebianSid$'
soak "room to write, image of 1700 MiB" '^TestRoom$'
soak "scratch areas over many starts" '^TestScratch$'
soak "volumes, sealed logs, configuration: all cases" '^Test(Volumes|SeveralVolumes|VolumesOfLibkrun|VolumeOnAFullHost|SealedLogs|Configuration)$'
soak "power cuts under a volume" '^TestPowerCuts$'
soak "scratch areas that a host made" '^TestScratchOfAHost$'
soak "hostile headers, three boots each" '^TestHostileHeaders$'
soak "a hostile host, each file" '^TestHostileHost$'
soak "a hostile machine, each place of the disk" '^TestHostileMachine$'
soak "a workload, each kind of root" '^TestWorkload$'
soak "each barrier before the report device" '^TestReportDeviceByNumber$'
soak "a file of 2.3 GB in BTRFS" '^TestLongFile$' ./workload/btrfs
soak "a bench, its peer failing or away" '^TestBenchGoesOn$'
soak "units under systemd, server away for 5 minutes" '^TestSystemd$'
soak "QEMU's machines, wrong parts" '^TestOVMFBoots$'
soak "kill -9, PostgreSQL" '^TestKills$/^postgres$'
soak "kill -9, SQLite" '^TestKills$/^sqlite$'
