#!/bin/bash
# usage: bench.sh    prints what a build costs, beside its floor and its peers
#
# All of a round's runs follow each other, so that a ratio compares what the
# same machine did at the same time; ratios are medians over rounds. What is
# not installed is skipped, and named.
#
# Environment: BENCH_ROUNDS   rounds (3)
#              BENCH_DIR      an empty directory with 5 GB free (a temporary one)
#              BENCH_MIB      size of the large image (700)
#              BENCH_BUILDAH  a buildah with mkcw, 1.39 or later (buildah)
set -euo pipefail
export LC_ALL=C
rounds=${BENCH_ROUNDS:-3} mib=${BENCH_MIB:-700} buildah=${BENCH_BUILDAH:-buildah}
bin=$(cd "$(dirname "$0")/../bin" && pwd)
work=${BENCH_DIR:-$(mktemp -d -p "${TMPDIR:-/var/tmp}")}
mkdir -p "$work"
work=$(realpath "$work")
skip() { echo "skipped: $*" >&2; }
cleanup() {
	umount "$work/ours/overlay" "$work/theirs/overlay" "$work/tmpfs" 2>/dev/null || true
	[[ -n ${BENCH_DIR:-} ]] || rm -rf "$work"
}
trap cleanup EXIT

# blob FILE: moves it into layout $layout and says its descriptor's rest.
blob() {
	local d
	d=$(sha256sum "$1" | cut -d' ' -f1)
	printf '"digest":"sha256:%s","size":%s' "$d" "$(stat -c %s "$1")"
	mv "$1" "$layout/blobs/sha256/$d"
}

# image NAME MIB: makes NAME.plain and NAME.gzip of this system's own files.
image() {
	local name=$1 left=$2 list=$work/$1.list n=0 part diffs="" plain="" zipped="" layout config m
	find /usr -xdev -type f -size -64M -printf '%s\t%p\n' 2>/dev/null | awk -F '\t' -v left="$((left << 20))" '(left -= $1) > 0 {print $2}' >"$list"
	split -n l/3 "$list" "$list."
	mkdir -p "$work/$name".{plain,gzip}/blobs/sha256
	for part in "$list".??; do
		tar --numeric-owner -cPf "$work/layer" -T "$part" --transform 's,^/,,'
		gzip -6nc "$work/layer" >"$work/layer.gz"
		diffs+=${diffs:+,}\"sha256:$(sha256sum "$work/layer" | cut -d' ' -f1)\"
		layout=$work/$name.plain
		plain+=${plain:+,}$(printf '{"mediaType":"application/vnd.oci.image.layer.v1.tar",%s}' "$(blob "$work/layer")")
		layout=$work/$name.gzip
		zipped+=${zipped:+,}$(printf '{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",%s}' "$(blob "$work/layer.gz")")
	done
	config='{"architecture":"amd64","os":"linux","config":{"Cmd":["/usr/bin/true"]},"rootfs":{"type":"layers","diff_ids":['$diffs']}}'
	for m in "plain $plain" "gzip $zipped"; do
		layout=$work/$name.${m%% *}
		echo -n "$config" >"$work/config"
		printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[%s]}' \
			"$(blob "$work/config")" "${m#* }" >"$work/manifest"
		printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,"annotations":{"org.opencontainers.image.ref.name":"app"}}]}' \
			"$(blob "$work/manifest")" >"$layout/index.json"
		echo -n '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
	done
}

firmware=$work/firmware
mkdir -p "$firmware" "$work/tmp"
head -c 8M /dev/zero >"$firmware/vmlinuz"
echo '{"version":1,"kind":"qemu-direct","kernel":"vmlinuz","cmdline":"quiet"}' >"$firmware/firmware.json"
pin=$(printf 'ab%.0s' {1..32})
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"

# ours SOURCE DEST [FLAG...]
ours() {
	local from=$1 to=$2
	shift 2
	rm -f "$work/record"
	"$bin/ccrun" build -q --tee sample --firmware "$firmware" --attest-url https://127.0.0.1:8443 --pin "$pin" \
		--signature-policy "$work/policy.json" --no-register --record "$work/record" "$@" "$from" "$to" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
}
export -f ours
export bin work firmware pin

storage() { printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/$1" "$work/$1-run" >"$work/$1.conf"; }

# run NAME COMMAND...: one measured run, a line "NAME wall cpu rss" in $work/runs
run() {
	local name=$1
	shift
	if [[ -n $gnutime ]]; then
		"$gnutime" -o "$work/one" -f '%e %U %S %M' bash -c 'set -e; "$@"' bench "$@"
		awk -v n="$name" -v r="$round" '{print n, r, $1, $2 + $3, $4 / 1024}' "$work/one" >>"$work/runs"
	else
		local TIMEFORMAT='%R %U %S'
		{ time "$@" 2>&3; } 3>&2 2>"$work/one"
		awk -v n="$name" -v r="$round" '{print n, r, $1, $2 + $3, 0}' "$work/one" >>"$work/runs"
	fi
}

# floor IMAGE: reads the input, hashes as many bytes as the output has.
floor() { cat "$work/$1.plain/blobs/sha256/"* >/dev/null && openssl dgst -sha256 "$work/$1.out/blobs/sha256/"* >/dev/null; }
toLayout() { rm -rf "$work/$1.$3out" && ours "oci:$work/$1.$2:app" "oci:$work/$1.$3out:cw" "${@:4}"; }
toStore() { CONTAINERS_STORAGE_CONF=$work/ours.conf ours "containers-storage:localhost/$1" "containers-storage:localhost/$1-cw"; }
mkcw() { CONTAINERS_STORAGE_CONF=$work/theirs.conf TMPDIR=$work/tmp "$buildah" mkcw --type snp --cpus 1 --memory 512 --passphrase bench --workload-id x "localhost/$1" "localhost/$1-cw" >/dev/null 2>&1; }
export -f floor toLayout toStore mkcw
export buildah

gnutime=$(command -v time || true)
[[ -n $gnutime ]] || { gnutime=; skip "peak memory: apt-get install time"; }
store=yes peer=yes
if [[ $(id -u) != 0 ]]; then
	skip "local storage and mkcw: not root"
	store= peer=
elif ! command -v skopeo >/dev/null; then
	skip "local storage: apt-get install skopeo"
	store=
fi
if [[ -n $peer ]] && ! "$buildah" mkcw --help >/dev/null 2>&1; then
	skip "buildah mkcw: no $buildah with mkcw (1.39 or later); set BENCH_BUILDAH"
	peer=
fi

: >"$work/runs"
round=0
for i in "small $((mib / 4))" "large $mib"; do
	set -- $i
	echo "making the $1 image of $2 MiB" >&2
	[[ -d $work/$1.gzip ]] || image "$1" "$2"
	toLayout "$1" plain ""
	if [[ -n $store ]]; then
		storage ours
		CONTAINERS_STORAGE_CONF=$work/ours.conf skopeo copy -q --policy "$work/policy.json" "oci:$work/$1.plain:app" "containers-storage:localhost/$1" || { skip "local storage"; store=; }
	fi
	if [[ -n $peer ]]; then
		storage theirs
		{ CONTAINERS_STORAGE_CONF=$work/theirs.conf "$buildah" pull -q "oci:$work/$1.plain:app" >"$work/id" &&
			CONTAINERS_STORAGE_CONF=$work/theirs.conf "$buildah" tag "$(tail -n1 "$work/id")" "localhost/$1"; } || { skip "mkcw: cannot pull into its storage"; peer=; }
	fi
	for round in $(seq "$rounds"); do
		echo "$1 image, round $round of $rounds" >&2
		run "$1/floor" floor "$1"
		run "$1/plain-to-oci" toLayout "$1" plain ""
		run "$1/gzip-to-oci" toLayout "$1" gzip gz
		run "$1/plain-to-oci,erofs" toLayout "$1" plain erofs --fs erofs
		[[ -z $store ]] || run "$1/storage-to-storage" toStore "$1"
		[[ -z $peer ]] || run "$1/mkcw" mkcw "$1"
	done
done

awk '
function median(s,   a, n, i, j, t) {
	n = split(s, a, " ")
	for (i = 2; i <= n; i++) for (j = i; j > 1 && a[j-1] + 0 > a[j] + 0; j--) { t = a[j]; a[j] = a[j-1]; a[j-1] = t }
	return n % 2 ? a[(n+1)/2] + 0 : (a[n/2] + a[n/2+1]) / 2
}
{ if (!($1 in wall)) order[++n] = $1
  wall[$1] = wall[$1] " " $3; cpu[$1] = cpu[$1] " " $4; rss[$1] = rss[$1] " " $5
  split($1, p, "/"); key = p[1] "," $2; row[$1, $2] = $3; crow[$1, $2] = $4
  if (p[2] == "floor") { f[key] = $3; fc[key] = $4 }
  if (p[2] == "mkcw") { m[key] = $3; mc[key] = $4 }
  rounds = $2 }
END {
	printf "\n%-28s %8s %8s %8s %9s %9s %9s %9s\n", "build", "wall s", "CPU s", "RSS MiB", "x floor", "CPU x fl", "mkcw / x", "CPU m / x"
	for (i = 1; i <= n; i++) {
		k = order[i]; split(k, p, "/"); a = b = c = d = ""
		for (r = 1; r <= rounds; r++) if ((k, r) in row) {
			key = p[1] "," r
			a = a " " row[k, r] / (f[key] + 1e-9); b = b " " crow[k, r] / (fc[key] + 1e-9)
			if (key in m) { c = c " " m[key] / (row[k, r] + 1e-9); d = d " " mc[key] / (crow[k, r] + 1e-9) }
		}
		printf "%-28s %8.2f %8.2f %8.0f %9.2f %9.2f %9s %9s\n", k, median(wall[k]), median(cpu[k]), median(rss[k]), median(a), median(b), c == "" ? "-" : sprintf("%.1f", median(c)), d == "" ? "-" : sprintf("%.1f", median(d))
	}
}' "$work/runs"

echo
for i in small large; do
	in=$(cat "$work/$i.plain/blobs/sha256/"* | wc -c)
	for o in out erofsout; do
		out=$(cat "$work/$i.$o/blobs/sha256/"* | wc -c)
		echo "size, $i ${o%out}: $((in >> 20)) MiB in, $((out >> 20)) MiB out, $(awk "BEGIN {printf \"%+.1f\", ($out / $in - 1) * 100}") %"
	done
done

# temporary NAME COMMAND...: peak of TMPDIR, on a file system of its own, in a run apart
temporary() {
	local name=$1 peak=0 used pid
	shift
	"$@" &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		used=$(df --output=used -k "$work/tmp" | tail -n1)
		((used <= peak)) || peak=$used
		sleep 0.02
	done
	wait "$pid" || true
	echo "peak temporary disk, $name: $((peak >> 10)) MiB"
}
if [[ $(id -u) == 0 ]] && mount -t tmpfs -o size=80% tmpfs "$work/tmp" 2>/dev/null; then
	export TMPDIR=$work/tmp
	temporary "large/plain-to-oci" toLayout large plain ""
	temporary "large/gzip-to-oci (given back as the output grows)" toLayout large gzip gz
	[[ -z $store ]] || temporary "large/storage-to-storage" toStore large
	unset TMPDIR
	umount "$work/tmp"
else
	skip "peak temporary disk: cannot mount a tmpfs"
fi

echo
cd "$(dirname "$0")/.."
go test -run '^$' -bench 'XTS|Sector|Writer' -benchtime 0.3s ./luks | grep -E '^Benchmark|^cpu'
if command -v openssl >/dev/null; then
	openssl speed -elapsed -seconds 1 -bytes 4096 -evp aes-256-xts 2>/dev/null | tail -n1 | sed 's/^/openssl, 4096 bytes, one core, per second: /'
else
	skip "openssl speed"
fi
skip "luksy alone: not a dependency; it is inside mkcw"
cryptsetup benchmark --cipher aes-xts --key-size 512 2>/dev/null | grep aes-xts || skip "cryptsetup benchmark: needs AF_ALG"
go test -run '^$' -bench . -benchtime 0.3s ./attest-server/verifier ./krun/measure | grep -E '^Benchmark'
