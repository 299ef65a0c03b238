package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

// systemctl is what a machine without systemd as PID 1 has in its place: it runs
// the server as the shipped unit does.
const systemctl = `#!/bin/sh
set -eu
cred=$STATE/credentials
case "$1" in
start)
	mkdir -p "$cred"
	cp /etc/attest-server/master-key "$cred/master-key"
	CREDENTIALS_DIRECTORY=$cred attest-server serve --config /etc/attest-server/attest-server.toml --data /var/lib/attest-server >"$STATE/out" 2>>"$STATE/log" &
	echo $! >"$STATE/pid"
	until grep -q . "$STATE/out"; do
		kill -0 "$(cat "$STATE/pid")" || { cat "$STATE/log"; exit 1; }
		sleep 0.1
	done ;;
stop | disable)
	pid=$(cat "$STATE/pid")
	kill "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	rm "$STATE/out" ;;
reload)
	seen=$(grep -c 'read again\|keeping all' "$STATE/log" || :)
	kill -HUP "$(cat "$STATE/pid")"
	until [ "$(grep -c 'read again\|keeping all' "$STATE/log" || :)" -gt "$seen" ]; do sleep 0.1; done
	! tail -1 "$STATE/log" | grep 'keeping all' ;;
restart) "$0" stop && "$0" start ;;
esac
`

// room makes what the page takes for granted: a machine of its own, with its own
// /etc, /var/lib and network, and the server set up as the unit's head says.
const room = `set -euo pipefail
mkdir "$STATE" varlib
cp -a /etc etc
mount --bind etc /etc
mount --bind varlib /var/lib
mount -t tmpfs tmpfs /media
mount -t tmpfs tmpfs /srv
ip link set lo up
echo '127.0.0.1 keys.example.com keys2.example.com' >>/etc/hosts
install -D -m 0644 "$UNIT/attest-server.toml" /etc/attest-server/attest-server.toml
attest-server init --data /var/lib/attest-server --name keys.example.com --master-key-out /etc/attest-server/master-key --token-out attest-server.token
systemctl start attest-server
trap 'kill "$(cat "$STATE/pid")" || :' EXIT
`

// busy makes the log as long as it takes to archive of it.
const busy = `curl -sSf -o /dev/null --cacert /media/ca/ca.pem -H "Authorization: Bearer $(cat attest-server.token)" -H 'Content-Type: application/json' -X PUT \
	--data '{"value":"eA==","policy":{"tenants":["acme"]}}' 'https://keys.example.com:8443/v1/resources/default/fill/[1-260]'
`

// otherBlock is a block of commands that no test types as written.
var otherBlock = regexp.MustCompile("(?s)```console\n(.*?)```")

// TestDayTwo types docs/operations.md's "Day two, typed" into one shell, as
// written.
func TestDayTwo(t *testing.T) {
	endToEnd(t)
	for _, tool := range []string{"unshare", "ip"} {
		_, err := exec.LookPath(tool)
		need(t, err)
	}
	if os.Geteuid() != 0 {
		need(t, fmt.Errorf("root, for namespaces"))
	}
	page := dayTwo(t)
	for _, block := range otherBlock.FindAllStringSubmatch(page, -1) {
		t.Logf("not typed, for it takes hardware or a vendor's service:\n%s", block[1])
	}
	w := &world{t: t, dir: t.TempDir(), bin: binDir(t)}
	w.dayTwoTools(t)
	var script strings.Builder
	script.WriteString(room)
	blocks := shellBlock.FindAllStringSubmatch(page, -1)
	for _, block := range blocks {
		if strings.Contains(block[1], "audit archive") {
			script.WriteString(busy)
		}
		script.WriteString("set -v\n" + block[1] + "set +v\n")
	}
	script.WriteString("trap - EXIT\necho THE END\n")
	unit, err := filepath.Abs("../packaging/systemd")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "-mn", "bash", "-c", script.String())
	cmd.Dir = w.dir
	foreign := func(v string) bool { return strings.HasPrefix(v, "CCRUN_") || strings.HasPrefix(v, "CONTAINER") }
	cmd.Env = append(slices.DeleteFunc(os.Environ(), foreign), "HOME="+w.dir, "XDG_CONFIG_HOME=", "PATH="+filepath.Join(w.dir, "tools")+":"+w.bin+":"+os.Getenv("PATH"),
		"TMPDIR="+w.mkdir("tmp"), "STATE="+filepath.Join(w.dir, "state"), "UNIT="+unit)
	out, err := cmd.CombinedOutput()
	said := string(out)
	if err != nil || !strings.Contains(said, "THE END") {
		log, _ := os.ReadFile(filepath.Join(w.dir, "state/log"))
		t.Fatalf("day two stops: %v\n%s\nserver:\n%s", err, said, log)
	}
	for _, want := range []string{"keys2.example.com", "context keys.example.com is in use", "replaces:    shop@1", "version 2", "acme", "restored /srv/restored", "audit-1.jsonl"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if len(blocks) < 12 {
		t.Errorf("only %d steps", len(blocks))
	}
}

// dayTwo is that section.
func dayTwo(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n## Day two, typed\n")
	if !ok {
		t.Fatal("no section")
	}
	section, _, _ := strings.Cut(rest, "\n## ")
	return section
}

// dayTwoTools makes an image, two libraries, and what may not be installed.
func (w *world) dayTwoTools(t *testing.T) {
	t.Helper()
	tools := w.mkdir("tools")
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, "identity"), []byte(identity.String()+"\n"))
	keygen := fmt.Sprintf("#!/bin/sh\ncase $1 in -o) cp %s/identity \"$2\" ;; -y) echo %s ;; esac\n", w.dir, identity.Recipient())
	for name, text := range map[string]string{"systemctl": systemctl, "age-keygen": keygen} {
		write(t, filepath.Join(tools, name), []byte(text))
		if err := os.Chmod(filepath.Join(tools, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeOCI(t, filepath.Join(w.dir, "shop"), map[string]any{"Entrypoint": []string{"/bin/app"}},
		[]entry{dir("bin", 0o755), file("bin/app", 0o755, []byte("app"))})
	w.stockLibrary(t)
	lib := filepath.Join(w.dir, "libkrunfw-sev.so.5")
	next, err := os.ReadFile(lib)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "fw")); err != nil {
		t.Fatal(err)
	}
	w.stockLibrary(t) // of another noise
	other, err := os.ReadFile(lib)
	if err != nil || bytes.Equal(next, other) {
		t.Fatalf("two libraries of the same bytes, or %v", err)
	}
	write(t, lib+".1", other)
	write(t, lib, next)
}
