#!/bin/sh
# Runs a command with an environment in which Podman works here and knows the
# runtime krun-sim by name (a simulated TEE: it protects nothing).
#
#   tests/podman-env.sh podman run --runtime krun-sim IMAGE
#
# Nothing of the host's configuration is changed:
#  - A private containers.conf names the runtime. It is given to Podman by
#    CONTAINERS_CONF_OVERRIDE, or by CONTAINERS_CONF if Podman is older than 4.6.
#  - Where this process may not raise its limits to Podman's defaults (an
#    unprivileged machine in a sandbox), the file lowers them.
#  - Where cgroups are hybrid (version 1 with version 2 at .../unified), which
#    crun refuses, the command runs in a private mount namespace without the
#    version 2 mount. Containers with a bridge network can then be handled by
#    that command and its children only: wrap the whole session, not each call.
#
# Environment: CCRUN_SIM     the ccrun-sim binary (default: bin/ccrun-sim of this tree)
#              CCRUN_SIM_ROOT, CCRUN_SIM_FIRMWARE   handed on to krun-sim, as are
#              CCRUN_SIM_QEMU_FIRMWARE, CCRUN_SIM_QEMU_ROOT
#              CCRUN_KRUN    the ccrun binary, for a runtime "krun" (optional)
set -eu

if [ $# -eq 0 ] || [ "$1" = --help ]; then
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p}' "$0"
    [ $# -gt 0 ] || exit 2
    exit 0
fi

tree=$(cd "$(dirname "$0")/.." && pwd)
sim=$(realpath -m "${CCRUN_SIM:-$tree/bin/ccrun-sim}")
# Podman's own working directory is not ours.
if [ -n "${CCRUN_SIM_ROOT:-}" ]; then CCRUN_SIM_ROOT=$(realpath -m "$CCRUN_SIM_ROOT"); fi
if [ -n "${CCRUN_SIM_FIRMWARE:-}" ]; then CCRUN_SIM_FIRMWARE=$(realpath -m "$CCRUN_SIM_FIRMWARE"); fi
if [ -n "${CCRUN_KRUN:-}" ]; then CCRUN_KRUN=$(realpath -m "$CCRUN_KRUN"); fi
if [ ! -x "$sim" ]; then
    echo "podman-env: $sim is missing: run \`make build\` or set CCRUN_SIM" >&2
    exit 1
fi
if ! command -v podman >/dev/null; then
    echo "podman-env: podman is not installed: apt-get install podman crun" >&2
    exit 1
fi

# The files outlive this process: Podman's own clean-up reads them, too.
if [ "$(id -u)" = 0 ]; then run=/run; else run=${XDG_RUNTIME_DIR:?not root, and XDG_RUNTIME_DIR is not set}; fi
dir=$run/ccrun-podman-env
mask=$(umask)
umask 077
mkdir -p "$dir"

# can RESOURCE NUMBER: may a limit be raised to that? (sh knows no ulimit -u)
can() { bash -c "ulimit -H$1 $2" 2>/dev/null; }

# limits prints entries for default_ulimits where Podman's defaults are out of
# reach. Podman lowers its own process limit to pid_max first.
limits() {
    can n 1048576 || printf '"nofile=%s:%s",' "$(bash -c "ulimit -Hn")" "$(bash -c "ulimit -Hn")"
    can u 4194304 || printf '"nproc=%s:%s",' "$nproc" "$nproc"
}
nproc=$(bash -c 'ulimit -Hu')
pids=$(cat /proc/sys/kernel/pid_max)
if [ "$nproc" = unlimited ] || [ "$nproc" -gt "$pids" ]; then nproc=$pids; fi

config() {
    limits=$(limits)
    if [ -n "$limits" ]; then
        echo "[containers]"
        echo "default_ulimits = [${limits%,}]"
    fi
    # Podman 4.3 would take CNI when its default configuration lies about.
    if [ -x /usr/lib/podman/netavark ] || [ -x /usr/libexec/podman/netavark ]; then
        printf '[network]\nnetwork_backend = "netavark"\n'
    fi
    echo "[engine]"
    printf 'conmon_env_vars = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"'
    if [ -n "${CCRUN_SIM_ROOT:-}" ]; then printf ', "CCRUN_SIM_ROOT=%s"' "$CCRUN_SIM_ROOT"; fi
    if [ -n "${CCRUN_SIM_FIRMWARE:-}" ]; then printf ', "CCRUN_SIM_FIRMWARE=%s"' "$CCRUN_SIM_FIRMWARE"; fi
    for name in CCRUN_SIM_QEMU_FIRMWARE CCRUN_SIM_QEMU_ROOT; do
        eval "value=\${$name:-}"
        if [ -n "$value" ]; then printf ', "%s=%s"' "$name" "$(realpath -m "$value")"; fi
    done
    echo "]"
    echo "[engine.runtimes]"
    echo "krun-sim = [\"$1/krun-sim\"]"
    if [ -n "${CCRUN_KRUN:-}" ]; then echo "krun = [\"$1/krun\"]"; fi
}

# One directory per distinct content: two trees can be tested at once.
id=$( (config "" && echo "$sim ${CCRUN_KRUN:-}") | sha256sum | cut -c1-16)
mkdir -p "$dir/$id"
ln -sfn "$sim" "$dir/$id/krun-sim"
if [ -n "${CCRUN_KRUN:-}" ]; then ln -sfn "$CCRUN_KRUN" "$dir/$id/krun"; fi
config "$dir/$id" >"$dir/$id/new.$$"
mv "$dir/$id/new.$$" "$dir/$id/containers.conf"

version=$(podman --version | sed 's/[^0-9]*//')
major=${version%%.*}
minor=${version#*.}
minor=${minor%%.*}
if [ "$major" -gt 4 ] || { [ "$major" -eq 4 ] && [ "$minor" -ge 6 ]; }; then
    export CONTAINERS_CONF_OVERRIDE="$dir/$id/containers.conf"
else
    export CONTAINERS_CONF="$dir/$id/containers.conf"
fi

# Podman 5 would say on each call that cgroups are of version 1.
export PODMAN_IGNORE_CGROUPSV1_WARNING=1

umask "$mask"
if [ "$(id -u)" = 0 ] && [ "$(stat -fc %T /sys/fs/cgroup)" = tmpfs ] && mountpoint -q /sys/fs/cgroup/unified; then
    exec unshare --mount --propagation private sh -c 'umount /sys/fs/cgroup/unified && exec "$@"' podman-env "$@"
fi
exec "$@"
