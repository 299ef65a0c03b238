#!/bin/bash
# usage: demo.sh BIN-DIR CACHE-DIR        (`make demo` calls it)
#
# The main job end to end, then what an attacker would try. Everything is
# real but the TEE: no hardware signs the Evidence here, ccrun-sim does.
# Nothing of this machine's Podman is touched: storage, configuration and
# server live in a temporary directory that is gone at the end.
set -euo pipefail
bin=$(realpath "$1") cache=$(realpath -m "$2")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$bin:$PATH
firmware=${CCRUN_SIM_FIRMWARE:?demo: CCRUN_SIM_FIRMWARE must name the firmware made by make firmware}
port=${CCRUN_DEMO_PORT:-18443} started=$SECONDS

work=$(mktemp -d /tmp/ccrun-demo.XXXXXX)
cleanup() {
	status=$?
	set +e
	podman rm -fa -t 1 >/dev/null 2>&1
	[[ -n "${server_pid:-}" ]] && kill "$server_pid" 2>/dev/null && wait "$server_pid" 2>/dev/null
	((status == 0)) || { echo "demo: failed with status $status; the server's log ends:" >&2; tail -n 20 "$work/server.log" >&2; }
	podman unshare true >/dev/null 2>&1
	umount "$work"/storage/overlay 2>/dev/null
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Podman's storage and the runtime, private to the demo.
mkdir -p "$work/storage" "$work/run"
cat >"$work/storage.conf" <<-EOF
	[storage]
	driver = "overlay"
	graphroot = "$work/storage"
	runroot = "$work/run"
EOF
export CONTAINERS_STORAGE_CONF=$work/storage.conf CCRUN_SIM_ROOT=${CCRUN_SIM_ROOT:-$work/platform}

bold=$'\e[1m' plain=$'\e[0m'
[[ -t 1 ]] || bold='' plain=''
section() { printf '\n%s== %s%s  [%ds]\n' "$bold" "$*" "$plain" $((SECONDS - started)); }
show() {
	printf '$ %s\n' "$*"
	"$@"
}
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

# Where the guest finds the network that QEMU runs in.
gateway=$(sed -n 's/.*ccrun\.net=[^, "]*,\([^, "]*\),.*/\1/p' "$firmware/firmware.json")

section "The image: nginx from Debian's packages, with a secret page"
show "$here/shop/make-image.sh" "$cache/shop" localhost/shop

section "The trust anchor: attest-server, TLS and admin token from the first start"
show ccrun-sim init
show ccrun-sim attest-server init --data "$work/server" --name 127.0.0.1 --name "$gateway" --token-out "$work/token"
ccrun-sim attest-server serve --data "$work/server" --listen "127.0.0.1:$port" >"$work/server.log" 2>&1 &
server_pid=$!
for _ in {1..100}; do
	if curl -sfo /dev/null --cacert "$work/server/ca.pem" "https://127.0.0.1:$port/readyz"; then break; fi
	sleep 0.1
done
export CCRUN_SERVER=https://127.0.0.1:$port CCRUN_TOKEN_FILE=$work/token CCRUN_CA=$work/server/ca.pem

section "Build: OCI image -> encrypted disk, measured and registered"
show ccrun build --tee sample --firmware "$firmware" --attest-url "https://$gateway:$port" --attest-ca "$CCRUN_CA" \
	--workload-id shop containers-storage:localhost/shop containers-storage:localhost/shop-confidential
show ccrun inspect localhost/shop-confidential
show ccrun workload show shop

section "Run: Podman launches it, the agent attests, the disk unlocks"
show podman run -d --name shop --runtime krun-sim --network host localhost/shop-confidential
for _ in {1..300}; do
	if page=$(curl -sfm 2 http://127.0.0.1:8780/ 2>/dev/null); then break; fi
	sleep 0.1
done
printf '$ curl http://127.0.0.1:8780/\n%s\n' "${page:?demo: the workload did not answer: $(podman logs shop 2>&1 | tail -n 5)}"
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
show ccrun build -q --tee sample --firmware "$firmware" --attest-url "https://$gateway:$port" --attest-ca "$CCRUN_CA" \
	--workload-id other containers-storage:localhost/shop containers-storage:localhost/other-confidential
refused 3 "a session yields only its own workload's key" ccrun-sim attack other-key --workload other --victim shop

section "Attack 4: a program in a running VM asks for the key again"
refused 3 "a VM whose disk is open gets its key no more" ccrun-sim attack second-release --workload shop

section "Done in $((SECONDS - started)) s. The TEE was simulated; see README for what ran on real hardware"
