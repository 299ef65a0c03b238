#!/bin/bash
# usage: pages.sh BIN OUT
# Makes the manual pages OUT/man/*.gz and the completions OUT/completion/* of
# the programs in BIN.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "$1") work=$(realpath -m "$2")
mkdir -p "$work"/{man,completion}

# Manual pages: of the programs, from their own help; of formats and procedures,
# from docs.
page() { # NAME SECTION TITLE FILE
	{ printf '%% %s(%s)\n\n# NAME\n\n%s - %s\n\n' "$1" "$2" "$1" "$3" && sed '1d' "$4"; } | "$work/md2man" >"$work/man/$1.$2"
}
CGO_ENABLED=0 go build -o "$work/md2man" github.com/cpuguy83/go-md2man/v2
"$bin/ccrun" man --section 1 >"$work/man/ccrun.1"
"$bin/ccrun-sim" man --section 1 >"$work/man/ccrun-sim.1"
"$bin/attest-server" man --section 8 >"$work/man/attest-server.8"
page ccrun-image 5 "what a confidential workload's image holds" docs/image-format.md
page ccrun-protocol 7 'how a workload gets its disk key' docs/protocol.md
page ccrun-measurement 7 'what the expected launch measurement is made of' docs/measurement.md
page ccrun-verification 7 'what Evidence is held against' docs/verification.md
page ccrun-threat-model 7 'the attacks, what stops each, and what is not stopped' docs/threat-model.md
page ccrun-podman 7 "Podman's options on confidential workloads" docs/podman-differences.md
page attest-server-operations 7 'running the attestation server' docs/operations.md
packaging/toml2md.awk packaging/systemd/attest-server.toml >"$work/man/toml.md"
page attest-server.toml 5 'configuration of attest-server' "$work/man/toml.md"
rm "$work/man/toml.md" "$work/md2man"
gzip -9nf "$work"/man/*

for program in ccrun ccrun-sim attest-server; do
	for shell in bash zsh fish; do
		"$bin/$program" completion $shell >"$work/completion/$program.$shell"
	done
done
