#!/bin/bash
# usage: deps.sh [test|bench]    installs the Debian packages that building and
# the demo use, and those of the tests or benchmarks, when any is missing. Asks
# for nothing and changes nothing else.
set -euo pipefail

packages=(
	ca-certificates
	podman crun conmon netavark iptables # containers
	qemu-system-x86                      # the simulated TEE's machine
	xz-utils cpio                        # kernel package, initrd
	skopeo curl busybox-static           # the demo's image and client
)
[[ ${1:-} != test ]] || packages+=(
	cryptsetup-bin # peers that check what we write
	e2fsprogs erofs-utils btrfs-progs
	iproute2                             # network namespaces
	catatonit                            # the process that holds a pod of Podman's
	gcc libc6-dev                        # dlopen test, race detector
	systemd                              # systemd-analyze verify, systemd-creds
	swtpm swtpm-tools libtss2-tcti-swtpm0 libtss2-esys-3.0.2-0 libtss2-rc0 # a TPM to seal the master key to
	postgresql                           # the store of several servers
	chromium fonts-dejavu-core           # the auditors' page
	ovmf                                 # firmware with a known measurement
	debootstrap make pkg-config gperf    # tests/rig: a root of another suite, crun
	libcap-dev libseccomp-dev libsystemd-dev
	rpm openssh-client                   # packages and their signature
	ansible-core                         # the role for edge hosts
)
[[ ${1:-} != bench ]] || packages+=(
	openssl time # the floor, peak memory
	postgresql   # the store of several servers
)

command -v go >/dev/null || {
	echo "deps: Go 1.26 or later is needed to build ccrun: https://go.dev/dl" >&2
	exit 1
}

missing=()
for p in "${packages[@]}"; do
	[[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null)" == ii* ]] || missing+=("$p")
done
((${#missing[@]})) || exit 0

if ((EUID != 0)); then
	echo "deps: as root: apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
