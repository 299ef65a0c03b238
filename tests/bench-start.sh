#!/bin/bash
# usage: bench-start.sh    prints what the start of a workload costs, beside a
# bare boot of the same kernel. Run by `make bench`, in tests/podman-env.sh.
#
# In the last line, lower is better; btrfs- and ext4- are the image's file system.
# "bare" is a machine with the same firmware and command line that loads all of
# the firmware's modules for a plain disk with the same file system and runs the
# same program from it; "lean" loads only those that it needs; "bare-ext4" is
# bare with ext4, whatever the image has.
#   work/bare        instructions from the kernel's start to the workload's first
#                    word, without those that waits would have had time for: no
#                    other load matters
#   guest/bare       the same by the guest's usual clock
#   power-on/bare    from QEMU's start to the first byte, by this machine's clock
#   podman-run/bare  the same from `podman run` (btrfs)
#   large/small      `podman run` of an image of BENCH_MIB, against one of 20 MiB
#
# Environment: BENCH_ROUNDS   rounds; ratios are medians over them (3)
#              BENCH_MIB      size of the large image (1500)
#              BENCH_WORK     1: instructions only, in some minutes
#              BENCH_FLAGS    more flags for ccrun build, but not --fs
set -euo pipefail
cd "$(dirname "$0")/.."
CCRUN_E2E=1 CCRUN_BIN=$PWD/bin go test -run '^$' -bench 'Start$' -benchtime 1x -timeout 40m ./tests | grep -vE '^(PASS|ok|goos|goarch|pkg|cpu)'
