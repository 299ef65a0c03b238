#!/bin/bash
# usage: demo.sh BIN-DIR CACHE-DIR        (`make demo` calls it)
#
# The main job end to end, then what an attacker would try. Everything is
# real but the TEE: no hardware signs the Evidence here, ccrun-sim does.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=examples/setup.sh
. "$here/setup.sh"

refused() { # refused STATUS WHAT COMMAND...: runs an attack that must end with STATUS
	local want=$1 what=$2 status=0
	shift 2
	show "$@" || status=$?
	((status == want)) || { echo "demo: expected status $want, got $status: the attack was not refused as it should be" >&2; exit 1; }
	printf '%s-> refused, as it must be: %s%s\n' "$bold" "$what" "$plain"
}

cat <<-EOF
	${bold}The TEE is simulated: this machine's own software plays the signing hardware
	and protects nothing. Real are: Podman, the guest kernel (QEMU), dm-crypt and
	dm-integrity, the launch digest over the bytes booted, the signatures, the
	server's appraisal and the key release.$plain
EOF

section "The image: nginx from Debian's packages, with a secret page"
show "$here/shop/make-image.sh" "$cache/shop"
image=oci:$cache/shop/image

section "The trust anchor: attest-server, TLS and admin token from the first start"
trust_anchor

section "Build: OCI image -> encrypted disk, measured and registered"
build shop "$image" localhost/shop-confidential
show ccrun inspect localhost/shop-confidential
show ccrun workload show shop

# Of attack 3: it is built while the VM starts, and shown there.
build other "$image" localhost/other-confidential -q >"$work/other" 2>&1 &
other=$!

section "Run: Podman launches it, the agent attests, the disk unlocks"
show podman run -d --name shop --runtime krun-sim --network host localhost/shop-confidential
page=$(answer shop 8780)
printf '$ curl http://127.0.0.1:8780/\n%s\n' "$page"
show podman logs shop
show podman stop -t 20 shop
echo "exit status: $(podman inspect --format '{{.State.ExitCode}}' shop)"

section "Attack 1: the host changes one byte of the initrd"
cid=$(podman create --runtime krun-sim --network host localhost/shop-confidential)
mnt=$(podman mount "$cid")
# Byte 4 of a gzip member is its time stamp: the guest boots all the same.
printf '\x01' | dd of="$mnt/initrd.img" bs=1 seek=4 conv=notrunc status=none
podman umount "$cid" >/dev/null
refused 77 "a changed initrd has another launch digest" podman start -a "$cid" 2>&1 | tee "$work/attack1"
show ccrun explain "$(sed -n 's/.*ccrun explain \([^ `]*\).*/\1/p' "$work/attack1" | head -n1)"

section "Attack 2: Evidence of an earlier session is played again"
refused 3 "old Evidence does not answer a new nonce" ccrun-sim attack replay --workload shop

section "Attack 3: an attested workload asks for another one's key"
wait "$other" && cat "$work/other"
refused 3 "a session yields only its own workload's key" ccrun-sim attack other-key --workload other --victim shop

section "Attack 4: a program in a running VM asks for the key again"
refused 3 "a VM whose disk is open gets its key no more" ccrun-sim attack second-release --workload shop

section "Done in $((SECONDS - started)) s. The TEE was simulated; see README for what ran on real hardware"
