#!/bin/bash
# usage: bench.sh    prints what a build costs, beside its floor and its peers
#
# All of a round's runs follow each other, so that a ratio compares what the
# same machine did at the same time; ratios are medians over rounds. What is
# not installed is skipped, and named. What fails is named, with its last words,
# and left out from then on; only a build of ours that fails makes the status 1.
#
# The floor reads the input, which is in the page cache, and has openssl hash the
# output, which is not: builds write around it. "floor, cached" does the same once
# more, when the output is there too. It is the least that a build could take if
# its output were never written, and its row says how much of the floor is the
# reading of a disk.
#
# Environment: BENCH_ROUNDS   rounds (3)
#              BENCH_DIR      an empty directory with 5 GB free (a temporary one)
#              BENCH_MIB      size of the large image (700)
#              BENCH_CORES    cores to run the large image on ("all 1")
#              BENCH_PARTS    "builds", or "builds ciphers" with what follows them
#              BENCH_BUILDAH  a buildah with mkcw, 1.39 or later (buildah): Debian
#                             13's package, or its files in a directory of their
#                             own with the interpreter and run path set there
#
# In the table, "x floor" and "CPU x fl" are multiples of the floor of the same
# round (lower is better), "mkcw / x" and "CPU m / x" say how many times the
# build goes into mkcw's (higher is better). "disk" is what a build took at its
# peak beyond what it left, temporary files and output together; "left" is that,
# and "x plain" the same as a multiple of the source's uncompressed layers. Both
# are measured once, in a run apart, on a file system of its own in memory.
set -euo pipefail
export LC_ALL=C
rounds=${BENCH_ROUNDS:-3} mib=${BENCH_MIB:-700} buildah=${BENCH_BUILDAH:-buildah} cores=${BENCH_CORES:-all 1}
parts=${BENCH_PARTS:-builds ciphers}
bin=$(cd "$(dirname "$0")/../bin" && pwd)
work=${BENCH_DIR:-$(mktemp -d -p "${TMPDIR:-/var/tmp}")}
mkdir -p "$work"
work=$(realpath "$work")
skip() { echo "skipped: $*" >&2; }
cleanup() {
	local m
	for m in ours/overlay theirs/overlay disk; do umount -R "$work/$m" 2>/dev/null || true; done
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
mkdir -p "$firmware" "$work/tmp" "$work/disk"
head -c 8M /dev/zero >"$firmware/vmlinuz"
echo '{"version":1,"kind":"qemu-direct","kernel":"vmlinuz","cmdline":"quiet initcall_blacklist=acpi_init"}' >"$firmware/firmware.json"
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

# place is where outputs, stores and temporary files are for now.
place=$work
storage() {
	mkdir -p "$place/tmp"
	printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$place/$1" "$place/$1-run" >"$place/$1.conf"
}

# pinned COMMAND...: runs it on $pins cores.
pinned() { if [[ $pins == all ]]; then "$@"; else taskset -c "0-$((pins - 1))" "$@"; fi; }
pins=all

declare -A failed=()
status=0

# fail NAME: leaves NAME out from now on, and says why.
fail() {
	failed[$1]=yes
	echo "failed: $1: $(grep -v '^$' "$work/said" | tail -n1 || true)" >&2
	[[ $1 == */mkcw ]] || status=1
}

# run NAME COMMAND...: one measured run, a line "NAME round wall cpu rss" in $work/runs
run() {
	local name=$1 TIMEFORMAT='%R %U %S'
	shift
	[[ -z ${failed[$name]:-} ]] || return 0
	if [[ -n $gnutime ]]; then
		pinned "$gnutime" -q -o "$work/one" -f '%e %U %S %M' bash -c 'set -e; "$@"' bench "$@" >"$work/said" 2>&1 || { fail "$name"; return 0; }
	else
		{ time pinned bash -c 'set -e; "$@"' bench "$@" >"$work/said" 2>&1; } 2>"$work/one" || { fail "$name"; return 0; }
	fi
	awk -v n="$name" -v r="$round" '{print n, r, $1, $2 + $3, $4 / 1024}' "$work/one" >>"$work/runs"
}

# floor IMAGE: reads the input, hashes as many bytes as the output has.
floor() { cat "$work/$1.plain/blobs/sha256/"* >/dev/null && openssl dgst -sha256 "$work/$1.out/blobs/sha256/"* >/dev/null; }
toLayout() { rm -rf "$place/$1.$3out" && TMPDIR=$place/tmp ours "oci:$work/$1.$2:app" "oci:$place/$1.$3out:cw" "${@:4}"; }
toStore() { CONTAINERS_STORAGE_CONF=$place/ours.conf TMPDIR=$place/tmp ours "containers-storage:localhost/$1" "containers-storage:localhost/$1-cw"; }
mkcw() { CONTAINERS_STORAGE_CONF=$place/theirs.conf TMPDIR=$place/tmp "$buildah" mkcw --type snp --cpus 1 --memory 512 --passphrase bench --workload-id x "localhost/$1" "localhost/$1-cw"; }
export -f floor toLayout toStore mkcw
export buildah place

# fill STORE IMAGE: puts the image into a new store.
fill() {
	storage "$1"
	if [[ $1 == ours ]]; then
		CONTAINERS_STORAGE_CONF=$place/ours.conf skopeo copy -q --policy "$work/policy.json" "oci:$work/$2.plain:app" "containers-storage:localhost/$2"
	else
		CONTAINERS_STORAGE_CONF=$place/theirs.conf "$buildah" pull -q "oci:$work/$2.plain:app" >"$work/id" &&
			CONTAINERS_STORAGE_CONF=$place/theirs.conf "$buildah" tag "$(tail -n1 "$work/id")" "localhost/$2"
	fi
}

# builds IMAGE SUFFIX RUNNER: gives each build of it to RUNNER, with a name.
builds() {
	"$3" "$1$2/plain-to-oci" toLayout "$1" plain ""
	"$3" "$1$2/gzip-to-oci" toLayout "$1" gzip gz
	"$3" "$1$2/plain-to-oci,erofs" toLayout "$1" plain erofs --fs erofs
	"$3" "$1$2/plain-to-oci,ext4" toLayout "$1" plain ext4 --fs ext4
	[[ -z $store ]] || "$3" "$1$2/storage-to-storage" toStore "$1"
	[[ -z $peer ]] || "$3" "$1$2/mkcw" mkcw "$1"
}

command -v openssl >/dev/null || { echo "bench: the floor needs openssl: apt-get install openssl" >&2; exit 1; }
gnutime=$(type -P time || true)
[[ -n $gnutime ]] || skip "peak memory: apt-get install time"
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
	[[ -z $store ]] || fill ours "$1" || { skip "local storage"; store=; }
	[[ -z $peer ]] || fill theirs "$1" || { skip "mkcw: cannot pull into its storage"; peer=; }
	on=$cores
	[[ $1 == large ]] || on=all
	for round in $(seq "$rounds"); do
		echo "$1 image, round $round of $rounds" >&2
		for pins in $on; do
			suffix=
			[[ $pins == all ]] || suffix=@$pins
			run "$1$suffix/floor" floor "$1"
			run "$1$suffix/floor,cached" floor "$1"
			builds "$1" "$suffix" run
		done
	done
done
pins=all

# occupy NAME COMMAND...: peak and growth of $place, in KiB, as a line
# "NAME beyond left" in $work/disks
occupy() {
	local name=$1 before now peak pid
	shift
	[[ -z ${failed[$name]:-} ]] || return 0
	rm -rf "$place/"*out # an earlier one's output
	before=$(used) peak=$before
	"$@" >"$work/said" 2>&1 &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		now=$(used)
		((now <= peak)) || peak=$now
		sleep 0.02
	done
	wait "$pid" || { fail "$name"; return 0; }
	now=$(used)
	echo "$name $((peak - now)) $((now - before))" >>"$work/disks"
}
used() { df --output=used -k "$place" | tail -n1; }

: >"$work/disks"
for i in small large; do
	cat "$work/$i.plain/blobs/sha256/"* | wc -c | awk -v n="$i" '{print n "/floor", "-", $1 / 1024}' >>"$work/disks"
	if [[ $(id -u) == 0 ]] && mount -t tmpfs -o size=80% tmpfs "$work/disk" 2>/dev/null; then
		echo "$i image, disk" >&2
		place=$work/disk
		mkdir "$place/tmp"
		{ [[ -z $store ]] || fill ours "$i"; } && { [[ -z $peer ]] || fill theirs "$i"; } && builds "$i" "" occupy
		umount -R "$place"
		place=$work
	else
		skip "disk: cannot mount a tmpfs"
	fi
done

awk '
function median(s,   a, n, i, j, t) {
	n = split(s, a, " ")
	for (i = 2; i <= n; i++) for (j = i; j > 1 && a[j-1] + 0 > a[j] + 0; j--) { t = a[j]; a[j] = a[j-1]; a[j-1] = t }
	return n % 2 ? a[(n+1)/2] + 0 : (a[n/2] + a[n/2+1]) / 2
}
FILENAME ~ /disks$/ {
  split($1, p, "/")
  if (p[2] == "floor") { plain[p[1]] = $3; next }
  beyond[$1] = sprintf("%.0f", $2 / 1024); left[$1] = sprintf("%.0f", $3 / 1024)
  share[$1] = sprintf("%.3f", $3 / plain[p[1]]); next
}
{ if (!($1 in wall)) order[++n] = $1
  wall[$1] = wall[$1] " " $3; cpu[$1] = cpu[$1] " " $4; rss[$1] = rss[$1] " " $5
  split($1, p, "/"); key = p[1] "," $2; row[$1, $2] = $3; crow[$1, $2] = $4
  if (p[2] == "floor") { f[key] = $3; fc[key] = $4 }
  if (p[2] == "mkcw") { m[key] = $3; mc[key] = $4 }
  rounds = $2 }
END {
	printf "\n%-36s %8s %8s %8s %9s %9s %9s %9s %9s %9s %8s\n", "build", "wall s", "CPU s", "RSS MiB", "x floor", "CPU x fl", "mkcw / x", "CPU m / x", "disk MiB", "left MiB", "x plain"
	for (i = 1; i <= n; i++) {
		k = order[i]; split(k, p, "/"); a = b = c = d = ""
		for (r = 1; r <= rounds; r++) if ((k, r) in row) {
			key = p[1] "," r
			a = a " " row[k, r] / (f[key] + 1e-9); b = b " " crow[k, r] / (fc[key] + 1e-9)
			if (key in m) { c = c " " m[key] / (row[k, r] + 1e-9); d = d " " mc[key] / (crow[k, r] + 1e-9) }
		}
		name = k; if (sub(/@[0-9]+/, "", name)) name = name ", " substr(p[1], index(p[1], "@") + 1) " core"
		printf "%-36s %8.2f %8.2f %8.0f %9.2f %9.2f %9s %9s %9s %9s %8s\n", name, median(wall[k]), median(cpu[k]), median(rss[k]), median(a), median(b), c == "" ? "-" : sprintf("%.1f", median(c)), d == "" ? "-" : sprintf("%.1f", median(d)),
			dash(beyond[k]), dash(left[k]), dash(share[k])
	}
}
function dash(v) { return v == "" ? "-" : v }
' "$work/disks" "$work/runs"

echo
[[ " $parts " == *" ciphers "* ]] || exit "$status"
cd "$(dirname "$0")/.."
go test -run '^$' -bench 'XTS|Sector|Writer' -benchtime 0.3s ./luks | grep -E '^Benchmark|^cpu'
if command -v openssl >/dev/null; then
	openssl speed -elapsed -seconds 1 -bytes 4096 -evp aes-256-xts 2>/dev/null | tail -n1 | sed 's/^/openssl, 4096 bytes, one core, per second: /'
else
	skip "openssl speed"
fi
skip "luksy alone: not a dependency; it is inside mkcw"
cryptsetup benchmark --cipher aes-xts --key-size 512 2>/dev/null | grep aes-xts || skip "cryptsetup benchmark: needs AF_ALG"
go test -run '^$' -bench . -benchtime 0.3s ./attest-server/verifier/... ./krun/measure | grep -E '^Benchmark'
exit "$status"
