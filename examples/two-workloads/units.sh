#!/bin/bash
# usage: units.sh DIR [REGISTRY/PATH]      (DIR: /etc/containers/systemd)
# Writes the units of two workloads, of which the one needs the other.
set -euo pipefail
dir=$1 from=${2:-registry.example.com}

mkdir -p "$dir"
ccrun quadlet --name ledger --publish 127.0.0.1:8781:8780 "$from/ledger-confidential:1" >"$dir/ledger.container"
ccrun quadlet --name shop --publish 8780:8780 "$from/shop-confidential:1" |
	sed '0,/^\[Unit\]$/s//[Unit]\nWants=ledger.service\nAfter=ledger.service/' >"$dir/shop.container"
