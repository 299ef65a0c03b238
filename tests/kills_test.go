package tests

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// TestKills kills servers under load, as TestKillUnderLoad does, with the store
// in PostgreSQL; and a thousand times with the store in SQLite, where heavy
// checks run (`make soak`).
func TestKills(t *testing.T) {
	endToEnd(t)
	soak := soaking()
	t.Run("postgres", func(t *testing.T) {
		c := newCluster(t)
		c.start()
		c.sql("postgres", "CREATE DATABASE kills")
		kills := "8"
		if soak {
			kills = "300"
		}
		killed(t, kills, "CCRUN_TEST_POSTGRES="+c.url("kills"))
	})
	t.Run("sqlite", func(t *testing.T) {
		if !soak {
			t.Skip("TestKills/sqlite is for `make soak`: `go test ./...` kills a few times")
		}
		killed(t, "1000")
	})
}

// killed runs TestKillUnderLoad, in a process of its own.
func killed(t *testing.T, kills string, env ...string) {
	t.Helper()
	cmd := exec.Command("nice", "go", "test", "-count=1", "-timeout", "5h", "-v", "-run", "^TestKillUnderLoad$", "./cmd/attest-server/command")
	cmd.Dir = ".."
	cmd.Env = append(append(os.Environ(), "CCRUN_KILLS="+kills), env...)
	out, err := cmd.CombinedOutput()
	sum := regexp.MustCompile(`\d+ kills; .*`).Find(out)
	if err != nil || sum == nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Logf("soak: %s", sum)
}
