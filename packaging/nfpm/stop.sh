#!/bin/sh
set -e
# deb: "remove"; rpm: 0, the number of versions that stay. Not at an upgrade.
case "${1:-}" in remove | 0) ;; *) exit 0 ;; esac
[ ! -d /run/systemd/system ] || systemctl disable --now attest-server.socket attest-server.service || true
