#!/bin/bash
# usage: inside.sh PLAYBOOKS PACKAGES
# Runs the example of Ansible twice on this very root, which rig/inside.sh made for
# it: the first time it changes what it shall, the second time nothing.
set -euo pipefail
export ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_NOCOLOR=1 ANSIBLE_HOME=/run/ansible LC_ALL=C.UTF-8
cp -r "$1" /run/example
ln -s "$2" /run/example/packages
cd /run/example
cat >test.ini <<-'EOF'
	[all:vars]
	ansible_connection=local
	ansible_python_interpreter=/usr/bin/python3
	[anchor]
	keys.example.com
	[edge]
	edge1.example.com
	[edge:vars]
	ccrun_edge_workloads=[{"name": "shop", "image": "registry.example.com/shop:1", "publish": ["8780:8780"]}]
	ccrun_edge_absent=["old"]
EOF
mkdir -p /etc/containers/systemd
touch /etc/containers/systemd/old.container
play() { ansible-playbook -i test.ini site.yml -e '{"attest_server_config": {"dialects": ["native"]}}' "$@"; }

play | tee first
grep -q 'keys.example.com .*changed=[1-9].*failed=0' first
grep -q 'edge1.example.com .*changed=[1-9].*failed=0' first
play | tee second
[[ $(grep -c 'changed=0 .*unreachable=0 .*failed=0' second) == 2 ]]
# A configuration that the server refuses is not written.
if play -e '{"attest_server_config": {"no_such_field": 1}}' >third; then
	echo "a wrong configuration was written" >&2
	exit 1
fi
grep -q native /etc/attest-server/attest-server.toml

openssl x509 -in fetched/keys.example.com-ca.pem -noout -subject
[[ $(stat -c %a /etc/attest-server/master-key /root/attest-server.token) == $'600\n600' ]]
grep -q 'PublishPort=8780:8780' /etc/containers/systemd/shop.container
[[ ! -e /etc/containers/systemd/old.container ]]
if grep -q "$(</root/attest-server.token)" first second; then
	echo "the token is in Ansible's output" >&2
	exit 1
fi
echo "applied twice, changed once"
