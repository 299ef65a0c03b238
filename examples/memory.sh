#!/bin/bash
# usage: memory.sh BIN-DIR CACHE-DIR      (`ccrun-sim demo memory` calls it)
#
# A canary, drawn just now, is part of a service's configuration. The host looks
# for it in the memory of an ordinary container, of a VM without a TEE, and of an
# SEV-SNP VM, where there is one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=examples/setup.sh
. "$here/setup.sh"

# search NAME: what the host reads of the container's memory; it must be found.
search() {
	local pid found as=()
	pid=$(podman inspect --format '{{.State.Pid}}' "$1")
	((EUID == 0)) || as=(podman unshare)
	found=$("${as[@]}" "$bin/ccrun-sim" demo search "$pid" <"$work/canary")
	printf '$ ccrun-sim demo search %s <canary\n%s\n' "$pid" "$found"
	[[ $found != "0 copies"* ]] || { echo "demo: expected to find it: something keeps this host from looking, and the demonstration shows nothing" >&2; exit 1; }
}

cat <<-EOF
	${bold}Nothing here is protected: the TEE is simulated, and parts 1 and 2 show what
	its hardware is for. Part 3 runs on SEV-SNP hardware only.$plain
EOF

section "A canary, drawn now, in the service's configuration"
mkdir "$work/context"
(umask 077 && head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/canary")
"$here/shop/make-image.sh" "$cache/shop" localhost/ccrun-demo/debian-nginx
sed "s|root .*;|location = / { return 200 canary-$(<"$work/canary"); }|; s|listen .*;|listen 8781;|" "$here/shop/nginx.conf" >"$work/context/nginx.conf"
sed 's|8780/tcp|8781/tcp|; /index.html/d' "$here/shop/Containerfile" >"$work/context/Containerfile"
podman --log-level error build -q --layers=false --network none -t localhost/canary "$work/context" >/dev/null
echo "$(wc -c <"$work/canary") characters"

section "1. An ordinary container"
show podman run -d --name plain --network host localhost/canary
answer plain 8781 >/dev/null
search plain
printf '%s-> FOUND: whoever is root on the host reads it%s\n' "$bold" "$plain"
podman rm -f -t 0 plain >/dev/null

section "2. A VM without a TEE: attested launch, encrypted disk, but memory in clear"
trust_anchor >/dev/null
build canary containers-storage:localhost/canary localhost/canary-confidential -q
show podman run -d --name vm --runtime krun-sim --network host localhost/canary-confidential
answer vm 8781 >/dev/null
search vm
printf '%s-> FOUND: a VM alone keeps nothing from its host%s\n' "$bold" "$plain"
disk=$(podman image mount localhost/canary-confidential)/disk.img
status=0
grep -qaF -f "$work/canary" "$disk" || status=$?
((status == 1)) || { echo "demo: grep ended with $status: the canary is on the disk, which should be encrypted, or it was not looked through" >&2; exit 1; }
podman image umount localhost/canary-confidential >/dev/null
echo "on its disk: not found, as that is encrypted"
podman rm -f -t 0 vm >/dev/null

section "3. An SEV-SNP VM"
if [[ $(cat /sys/module/kvm_amd/parameters/sev_snp 2>/dev/null) == [Y1] && -e /dev/sev ]]; then
	cat <<-EOF
		NOT SHOWN: this demonstration simulates the TEE, but this machine has a real one:
		  ccrun build --tee snp --workload-id canary-snp SOURCE localhost/canary-snp
		  ccrun run -d --name snp localhost/canary-snp
		  ccrun-sim demo search PID-OF-THE-CONTAINER <canary
		There the processor encrypts the VM's memory, and the search must end with 0 copies.
	EOF
else
	cat <<-EOF
		NOT SHOWN: this machine has no SEV-SNP. There the processor encrypts the VM's memory
		under a key that the host never has, and the same search must end with 0 copies.
		Nothing but the hardware can show that.
	EOF
fi

section "Done in $((SECONDS - started)) s: found in 1 and 2; 3 takes hardware"
