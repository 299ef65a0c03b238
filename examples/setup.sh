# What the demonstrations share. Sourced, with BIN-DIR and CACHE-DIR as arguments,
# and here set to its folder. Nothing of this machine's Podman is touched: storage,
# configuration and server live in a temporary directory that is gone at the end.
# shellcheck shell=bash
# shellcheck disable=SC2034 # cache is for whoever sources this
bin=$(realpath "$1") cache=$(realpath -m "$2")
export PATH=$bin:$PATH
firmware=${CCRUN_SIM_FIRMWARE:?demo: CCRUN_SIM_FIRMWARE must name the firmware made by make firmware}
port=${CCRUN_DEMO_PORT:-18443} started=$SECONDS

work=$(mktemp -d /tmp/ccrun-demo.XXXXXX)
# From here on, before anything can fail: the clean-up removes all containers there.
export CONTAINERS_STORAGE_CONF=$work/storage.conf CCRUN_SIM_ROOT=${CCRUN_SIM_ROOT:-$work/platform}
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

# Podman's storage, private to the demo.
mkdir -p "$work/storage" "$work/run"
cat >"$work/storage.conf" <<-EOF
	[storage]
	driver = "overlay"
	graphroot = "$work/storage"
	runroot = "$work/run"
EOF

bold=$'\e[1m' plain=$'\e[0m'
[[ -t 1 ]] || bold='' plain=''
section() { printf '\n%s== %s%s  [%ds]\n' "$bold" "$*" "$plain" $((SECONDS - started)); }
show() {
	printf '$ %s\n' "$*"
	"$@"
}

# Where the guest finds the network that QEMU runs in.
gateway=$(sed -n 's/.*ccrun\.net=[^, "]*,\([^, "]*\),.*/\1/p' "$firmware/firmware.json")

# trust_anchor starts a server, whose admin this is from then on.
trust_anchor() {
	show ccrun-sim init
	show ccrun-sim attest-server init --data "$work/server" --name 127.0.0.1 --name "$gateway" --token-out "$work/token"
	ccrun-sim attest-server serve --data "$work/server" --listen "127.0.0.1:$port" >"$work/server.log" 2>&1 &
	server_pid=$!
	for _ in {1..100}; do
		if curl -sfo /dev/null --cacert "$work/server/ca.pem" "https://127.0.0.1:$port/readyz"; then break; fi
		sleep 0.1
	done
	export CCRUN_SERVER=https://127.0.0.1:$port CCRUN_TOKEN_FILE=$work/token CCRUN_CA=$work/server/ca.pem
}

# build WORKLOAD SOURCE DEST [FLAG...]: DEST is in Podman's storage.
build() {
	show ccrun build "${@:4}" --tee sample --firmware "$firmware" --attest-url "https://$gateway:$port" --attest-ca "$CCRUN_CA" \
		--workload-id "$1" "$2" "containers-storage:$3"
}

# answer NAME PORT: what the web server in container NAME serves, once it does; a
# busy machine may take minutes to boot a VM.
answer() {
	local page=''
	for _ in {1..3000}; do
		if page=$(curl -sfm 2 "http://127.0.0.1:$2/" 2>/dev/null); then break; fi
		sleep 0.1
	done
	printf '%s\n' "${page:?demo: $1 did not answer: $(podman logs "$1" 2>&1 | tail -n 5)}"
}
