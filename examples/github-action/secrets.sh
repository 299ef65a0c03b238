#!/bin/bash
# usage: secrets.sh DIR
# Shows Vault or OpenBao who this job is (GitHub's OIDC token), and writes what
# the job needs into DIR. GitHub keeps no secret of ours; on command lines are none.
set -euo pipefail
umask 077
dir=$1
: "${VAULT_ADDR:?}" "${VAULT_ROLE:?}" "${VAULT_PATH:?MOUNT/PATH}" "${ACTIONS_ID_TOKEN_REQUEST_URL:?needs permissions: id-token: write}" "${ACTIONS_ID_TOKEN_REQUEST_TOKEN:?}"

# fetch HEADER URL [BODY-FILE]: the header, which is secret, comes by a file.
fetch() {
	printf 'header = "%s"\n' "$1" >"$dir/header"
	curl --silent --show-error --fail --max-time 30 --max-filesize 1048576 --config "$dir/header" ${3:+--data-binary "@$3"} "$2"
}
fetch "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=$VAULT_ADDR" |
	jq --arg role "$VAULT_ROLE" '{role: $role, jwt: .value}' >"$dir/login"
fetch "Content-Type: application/json" "$VAULT_ADDR/v1/auth/jwt/login" "$dir/login" | jq -je .auth.client_token >"$dir/vault"
fetch "X-Vault-Token: $(<"$dir/vault")" "$VAULT_ADDR/v1/${VAULT_PATH%%/*}/data/${VAULT_PATH#*/}" >"$dir/entry"
for name in token signing-key signing-key.pub signing-passphrase; do
	jq -je --arg name "$name" '.data.data[$name] | strings' "$dir/entry" >"$dir/$name"
done
rm "$dir"/{header,login,vault,entry}
