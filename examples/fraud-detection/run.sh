#!/bin/bash
# usage: eval "$(ccrun-sim up)"; run.sh
#
# A vendor has a model that no customer may see, a bank has transactions that no
# vendor may see. Both release theirs to one image alone, and only once both have
# approved exactly that image. The script plays the operator of the key server and
# both owners, each with a token of his own; the TEE is simulated. PORT is where the
# service listens, 8082 if it is not set.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${CCRUN_SERVER:?first: eval \"\$(ccrun-sim up)\"}" "${CCRUN_CA:?}" "${CCRUN_ATTEST_URL:?}" "${CCRUN_FIRMWARE:?}"
data=$(dirname "$CCRUN_CA") work=$(mktemp -d /tmp/fraud-detection.XXXXXX) name=fraud-detection-$$ port=${PORT:-8082}
cleanup() {
	status=$?
	podman rm -f -t 1 "$name" >/dev/null 2>&1 || true
	podman rmi -f "localhost/$name" "localhost/$name-cw" >/dev/null 2>&1 || true
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT

step() { printf '\n== %s\n' "$*"; }
as() { # as OWNER COMMAND...: with that owner's token
	local owner=$1
	shift
	CCRUN_TOKEN_FILE=$work/$owner.token "$@"
}
score() { curl -sS --max-time 60 "http://127.0.0.1:$port"/cgi-bin/score; }
expect() { # expect TEXT: what the service says now
	local said
	said=$(score)
	echo "$said"
	[[ $said == *"$1"* ]] || { echo "fraud-detection: expected: $1" >&2; exit 1; }
}

step "The operator of the key server makes two tenants, who learn nothing of each other"
for owner in vendor bank; do
	ccrun-sim attest-server tenant set "$owner" --data "$data"
	ccrun-sim attest-server token create --data "$data" --role publisher --tenant "$owner" --token-out "$work/$owner.token" >/dev/null
done

step "The vendor builds the image, and publishes its record: what it is, without its disk key"
cp /bin/busybox "$here/score" "$work/"
sed "s/8082/$port/" "$here/Containerfile" >"$work/Containerfile"
podman build -q -t "localhost/$name" "$work" >/dev/null
as vendor ccrun build -q --tee sample --workload-id vendor.scoring --cdh --record "$work/scoring.record" "localhost/$name" "localhost/$name-cw"

step "Each owner sets what is his, for this workload, with the consent of both"
as vendor ccrun resource set vendor/model/fraud --from-file "$here/model.csv" --workload vendor.scoring --approval vendor --approval bank
as bank ccrun resource set bank/transactions/today --from-file "$here/transactions.csv" --workload vendor.scoring --approval vendor --approval bank

step "The service starts, attests, and gets neither"
podman run -d --name "$name" --runtime krun-sim --network host "localhost/$name-cw" >/dev/null
curl -sS --retry 120 --retry-all-errors --retry-delay 1 -o /dev/null "http://127.0.0.1:$port"/cgi-bin/score
expect "not released: vendor/model/fraud"

step "The vendor approves both: still nothing, because the bank has not"
as vendor ccrun resource approve vendor/model/fraud "$work/scoring.record"
as vendor ccrun resource approve bank/transactions/today "$work/scoring.record"
expect "not released: vendor/model/fraud"

step "The bank has looked at the image (ccrun verify-image, a reproducible build), and approves"
as bank ccrun resource approve vendor/model/fraud "$work/scoring.record"
as bank ccrun resource approve bank/transactions/today "$work/scoring.record"
expect "t-1002 +2.56 suspicious"

step "The bank takes its word back: what is asked for from now on is refused"
as bank ccrun resource approve --withdraw bank/transactions/today "$work/scoring.record"
expect "not released: bank/transactions/today"

echo
echo "Neither owner has seen the other's data, nor has this host."
