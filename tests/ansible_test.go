package tests

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnsible applies the example's roles, twice, to a root like this machine's
// own, of which nothing stays.
func TestAnsible(t *testing.T) {
	endToEnd(t)
	if os.Getenv("CCRUN_LONG") != "soak" {
		t.Skip("CCRUN_LONG=soak runs the roles of examples/ansible")
	}
	if _, err := exec.LookPath("ansible-playbook"); err != nil {
		t.Skip("ansible-playbook is not installed: apt-get install ansible-core")
	}
	dist := filepath.Join(t.TempDir(), "dist")
	release(t, dist)
	example, err := filepath.Abs("../examples/ansible")
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("ansible/inside.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("rig/inside.sh", "/", t.TempDir(), strings.Join([]string{filepath.Dir(script), example, dist}, ":"), script, example, dist)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CONTAINERS_CONF") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("applied twice, changed once")) {
		t.Errorf("%v\n%s", err, out)
	}
	t.Log("soak: 2 roles, applied twice")
}
