#!/bin/bash
# usage: bench-server.sh    prints what attest-server costs, beside its floor
#
# Server and floor are processes of one core each; the floor is a TLS 1.3
# handshake with the server's key exchange and one P-384 verification. They
# are loaded in turn, and what is compared is above all the processor time of
# the process that serves, which other load hardly changes.
#
# Floods of six kinds come from 900 connections, beside an equal harmless load:
# how long guests wait, and how much memory the server takes.
#
# A server with witnesses is compared with one without. The audit log is read by
# pages, and verified.
#
# Two servers on one PostgreSQL database are compared with one, each with a
# small part of a processor, so that one machine can stand for several.
#
# Environment: BENCH_SECONDS  how long handshakes are measured (6)
#              BENCH_ROUNDS   changes between server and floor (3)
#              BENCH_SOAK     how long memory is watched (20s; the real one: 10m)
#              BENCH_FLOOD    requests of a flood (20000; the real one: 100000)
#              BENCH_AUDIT    entries of the audit log (500000; the real one: 5000000)
#              BENCH_PROFILE  FILE for the server's processor profile
set -euo pipefail
cd "$(dirname "$0")/.."
go test -run '^$' -bench 'Server|Floods' -benchtime 1x -timeout 40m ./cmd/attest-server/command | grep -vE '^(PASS|ok|goos|goarch|pkg)'
CCRUN_AUDIT_ENTRIES=${BENCH_AUDIT:-500000} go test -run '^$' -bench '^BenchmarkAudit$' -benchtime 1x -timeout 40m ./attest-server/store | grep -vE '^(PASS|ok|goos|goarch|pkg|cpu)'
CCRUN_E2E=1 CCRUN_BIN=$PWD/bin go test -run '^$' -bench TwoServers -benchtime 1x ./tests | grep -vE '^(PASS|ok|goos|goarch|pkg|cpu)'
