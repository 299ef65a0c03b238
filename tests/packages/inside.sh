#!/bin/bash
# usage: inside.sh OLD NEW PODMAN
# In a root file system of its own: installs the packages in OLD, upgrades to
# those in NEW, removes and purges them, and looks at what is there after each
# step. PODMAN, yes or no: whether Podman is, and ccrun-edge's dependencies are
# so met.
set -euo pipefail
old=$1 new=$2 podman=$3
fail() { echo "packages: $*" >&2; exit 1; }
there() { [[ -e $1 ]] || fail "$1 is not there after $2"; }
gone() { [[ ! -e $1 ]] || fail "$1 is there after $2"; }
debs() { for p in ccrun attest-server ccrun-edge ccrun-sim; do echo "$1/${p}"_*.deb; done; }
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
ignore=()
[[ $podman == yes ]] || ignore=(--ignore-depends=podman,crun,qemu-system-x86)

dpkg "${ignore[@]}" -i $(debs "$old") >/dev/null
for p in ccrun attest-server ccrun-sim; do
	$p --version | grep "^$p version " >/dev/null || fail "$p --version: $($p --version)"
	there "/usr/share/bash-completion/completions/$p" install
	bash -n "/usr/share/bash-completion/completions/$p"
done
/usr/libexec/ccrun/ccrun-init --version | grep '^ccrun-init version ' >/dev/null
for page in man1/ccrun.1 man1/ccrun-sim.1 man5/ccrun-image.5 man5/attest-server.toml.5 man7/ccrun-threat-model.7 man8/attest-server.8; do
	zcat "/usr/share/man/$page.gz" | grep '^\.SH' >/dev/null || fail "$page is no manual page"
done
for p in ccrun attest-server ccrun-edge ccrun-sim; do there "/usr/share/doc/$p/copyright" install; done
[[ $(readlink /usr/libexec/ccrun/krun) == /usr/bin/ccrun && $(readlink /usr/libexec/ccrun/krun-sim) == /usr/bin/ccrun-sim ]] || fail "the runtimes are not linked"
if [[ $podman == yes ]]; then
	[[ $(podman --runtime krun info --format '{{.Host.OCIRuntime.Path}}') == /usr/libexec/ccrun/krun ]] || fail "Podman does not know krun"
fi

# What its unit's header says, with the programs as installed.
attest-server init --data /var/lib/attest-server --name keys.example.com \
	--master-key-out /etc/attest-server/master-key --token-out /root/attest-server.token >/dev/null
echo '# mine' >>/etc/attest-server/attest-server.toml
CREDENTIALS_DIRECTORY=/etc/attest-server attest-server serve --config /etc/attest-server/attest-server.toml --check-config

dpkg "${ignore[@]}" -i $(debs "$new") >/dev/null
[[ $(dpkg-query -W -f '${Version}' ccrun) != "$(dpkg-deb -f $(echo "$old"/ccrun_*.deb) Version)" ]] || fail "not upgraded"
grep -q '^# mine' /etc/attest-server/attest-server.toml || fail "the upgrade lost what the administrator wrote"
CREDENTIALS_DIRECTORY=/etc/attest-server attest-server serve --config /etc/attest-server/attest-server.toml --check-config

dpkg "${ignore[@]}" -r ccrun-edge ccrun-sim ccrun attest-server >/dev/null
for f in /usr/bin/ccrun /usr/bin/attest-server /usr/bin/ccrun-sim /usr/libexec/ccrun /usr/lib/systemd/system/attest-server.service; do gone "$f" removal; done
there /etc/attest-server/attest-server.toml removal
dpkg -P ccrun-edge ccrun-sim ccrun attest-server >/dev/null 2>&1
gone /etc/attest-server/attest-server.toml purge
gone /etc/containers/containers.conf.d/ccrun.conf purge
# Never the keys: without them every workload is lost.
there /var/lib/attest-server/store.db purge
there /etc/attest-server/master-key purge
left=$(dpkg-query -l 'ccrun*' attest-server 2>/dev/null | grep -c '^ii' || true)
[[ $left == 0 ]] || fail "$left packages are left"
echo "packages: installed, upgraded, removed, purged"
