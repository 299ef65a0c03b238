#!/bin/bash
# Builds IMAGE from SOURCE, with SBOM, provenance and record attached, signs it,
# registers it as the next version of WORKLOAD_ID and checks what the registry
# then has. What action.yml sets is all there is to set.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${SOURCE:?}" "${IMAGE:?}" "${WORKLOAD_ID:?}" "${CCRUN_SERVER:?}" "${CCRUN_CA:?}" "${FIRMWARE:?}" "${TEE:?}"

# In memory where there is /dev/shm; gone at the end either way.
umask 077
secrets=$(mktemp -d -p "$([[ -d /dev/shm ]] && echo /dev/shm || echo "${RUNNER_TEMP:-/tmp}")")
trap 'rm -rf "$secrets"' EXIT
"$here/secrets.sh" "$secrets"
export CCRUN_TOKEN_FILE=$secrets/token

# The registry keeps signatures beside the image.
mkdir "$secrets/registries.d"
printf 'default-docker:\n  use-sigstore-attachments: true\n' >"$secrets/registries.d/default.yaml"

firmware=()
while IFS= read -r file; do [[ -z $file ]] || firmware+=(--firmware "$file"); done <<<"$FIRMWARE"

# The first release makes the workload, each after it the next version of it.
replace=()
if ccrun workload ls -q | grep -xF -e "$WORKLOAD_ID" >/dev/null; then replace=(--replace); fi

flags=(--tls-verify="${TLS_VERIFY:-true}" --registries.d "$secrets/registries.d")
ccrun build "${flags[@]}" --tee "$TEE" "${firmware[@]}" --attest-url "${ATTEST_URL:-$CCRUN_SERVER}" --attest-ca "$CCRUN_CA" \
	--workload-id "$WORKLOAD_ID" "${replace[@]}" --attach record,provenance,sbom \
	--sign-by-sigstore-private-key "$secrets/signing-key" --sign-passphrase-file "$secrets/signing-passphrase" \
	--digestfile digest "$SOURCE" "$IMAGE"
ccrun verify-image "${flags[@]}" --key "$secrets/signing-key.pub" --require record,provenance,sbom "${firmware[@]}" "$IMAGE"
echo "digest=$(<digest)" >>"${GITHUB_OUTPUT:-/dev/null}"
