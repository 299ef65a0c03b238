#!/bin/bash
# usage: ansible.sh ROLES PACKAGES BIN
# Applies the example's role twice to this very root, which rig/inside.sh made for
# it: the first time it changes what it shall, the second time nothing.
set -euo pipefail
export ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_PIPELINING=true ANSIBLE_NOCOLOR=1 ANSIBLE_HOME=/run/ansible LC_ALL=C.UTF-8 HOME=/root
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset XDG_CONFIG_HOME CCRUN_SERVER CCRUN_TOKEN_FILE CCRUN_CA
cp -r "$1" /run/example
ln -s "$2" /run/example/packages
"$3/attest-server" init --data /run/server --name 127.0.0.1 --token-out /run/admin.token
"$3/attest-server" token create --data /run/server --role auditor --token-out /run/example/auditor.token
cp /run/server/ca.pem /run/example/
"$3/attest-server" serve --data /run/server --listen 127.0.0.1:0 >/run/url 2>/run/server.log &
until [[ -s /run/url ]]; do sleep 0.1; done
cd /run/example
cat >test.ini <<-EOF
	[edge]
	edge1.example.com ansible_connection=local ansible_python_interpreter=/usr/bin/python3
	[edge:vars]
	ccrun_edge_server=$(</run/url)
	ccrun_edge_workloads=[{"name": "shop", "image": "registry.example.com/shop:1", "publish": ["8780:8780"]}]
	ccrun_edge_absent=["old"]
EOF
touch /etc/systemd/system/old.service
play() { ansible-playbook -i test.ini site.yml "$@"; }

play | tee first
grep -q 'changed=[1-9].*unreachable=0 .*failed=0' first
play | tee second
grep -q 'changed=0 .*unreachable=0 .*failed=0' second || { echo "the second run changed something" >&2; exit 1; }

[[ $(dpkg-query -W -f '${db:Status-Abbrev}' ccrun-edge) == 'ii ' ]]
[[ $(ccrun context ls -q) == edge && $(stat -c %a /etc/ccrun/server/token) == 600 ]]
ccrun workload ls
grep -q -- '--publish=8780:8780\|--publish 8780:8780\|-p 8780:8780' /etc/systemd/system/shop.service
[[ ! -e /etc/systemd/system/old.service ]]
if grep -qF "$(<auditor.token)" first second; then
	echo "the token is in Ansible's output" >&2
	exit 1
fi
echo "applied twice, changed once"
