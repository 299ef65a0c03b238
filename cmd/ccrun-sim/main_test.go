package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/sim"
)

// asProgram makes the test binary be ccrun-sim, so that tests can execute it
// under any name.
const asProgram = "CCRUN_SIM_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args))
	}
	os.Exit(m.Run())
}

type result struct {
	stdout, stderr string
	code           int
}

// execute runs ccrun-sim as argv[0] with args and environment env.
func execute(t *testing.T, env []string, argv0 string, args ...string) result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	c := exec.Command(self, args...)
	c.Args[0] = argv0
	c.Env = append([]string{asProgram + "=1", "PATH=" + os.Getenv("PATH")}, env...)
	c.Stdout, c.Stderr = &stdout, &stderr
	err = c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

// Whoever asks for help learns that nothing is protected, at every command.
func TestHelpSaysItProtectsNothing(t *testing.T) {
	var walk func(prefix []string, commands []*cli.Command)
	walk = func(prefix []string, commands []*cli.Command) {
		for _, c := range commands {
			if c.Name == "help" {
				continue
			}
			path := append(append([]string(nil), prefix...), c.Name)
			t.Run(strings.Join(path, " "), func(t *testing.T) {
				var out bytes.Buffer // not of a process: there are dozens
				app := newApp()
				app.Writer = &out
				if err := app.Run(append(append([]string{"ccrun-sim"}, path...), "--help")); err != nil || !strings.Contains(out.String(), notice) {
					t.Errorf("%v, no notice in:\n%s", err, out.String())
				}
			})
			walk(path, c.Subcommands)
		}
	}
	walk(nil, newApp().Commands)
	if got := execute(t, nil, "ccrun-sim", "--help"); !strings.Contains(got.stdout, notice) {
		t.Errorf("no notice in:\n%s", got.stdout)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"}, {"init", "--nonsense"}, {"init", "argument"}, {"evidence"}, {"vmm"},
		{"evidence", "--measurement", "00", "--output", "/nonexistent"},
		{"evidence", "--measurement", strings.Repeat("0", 96), "--output", "/nonexistent"},
	} {
		got := execute(t, nil, "ccrun-sim", args...)
		if got.code != face.Misused && got.code != face.Failed {
			t.Errorf("%q: status %d", args, got.code)
		}
		for line := range strings.Lines(got.stderr) {
			if !strings.Contains(line, notice) {
				t.Errorf("%q: line without notice: %s", args, line)
			}
		}
	}
}

func TestInitAndEvidence(t *testing.T) {
	dir := t.TempDir()
	root, out := filepath.Join(dir, "root"), filepath.Join(dir, "out")
	env := []string{"CCRUN_SIM_ROOT=" + root}
	measurement, data, host := strings.Repeat("ab", 48), strings.Repeat("cd", 64), strings.Repeat("ef", 32)
	args := []string{"evidence", "--measurement", measurement, "--report-data", data, "--host-data", host, "--vmpl", "1",
		"--policy", "0xb0000", "--output", out}
	if got := execute(t, env, "ccrun-sim", args...); got.code != face.Failed || !strings.Contains(got.stderr, "ccrun-sim init") {
		t.Errorf("without a platform: %+v", got)
	}
	for range 2 { // the second time it is there already
		if got := execute(t, env, "ccrun-sim", "init"); got.code != 0 || got.stdout != root+"\n" {
			t.Fatalf("init: %+v", got)
		}
	}
	if got := execute(t, env, "ccrun-sim", args...); got.code != 0 {
		t.Fatalf("evidence: %+v", got)
	}
	b, err := os.ReadFile(filepath.Join(out, "report.bin"))
	if err != nil || len(b) != sample.ReportSize {
		t.Fatalf("report of %d bytes, %v", len(b), err)
	}
	r, err := abi.ReportToProto(b)
	if err != nil {
		t.Fatal(err)
	}
	if r.Vmpl != 1 || r.Policy != 0xb0000 || r.Measurement[0] != 0xab || r.ReportData[63] != 0xcd || r.HostData[31] != 0xef {
		t.Errorf("report %v", r)
	}
	table, err := os.ReadFile(filepath.Join(out, "certificates.bin"))
	if err != nil || new(abi.CertTable).Unmarshal(table) != nil {
		t.Errorf("certificate table of %d bytes, %v", len(table), err)
	}
}

func TestServerRefusesWithoutPlatform(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	env := []string{"CCRUN_SIM_ROOT=" + filepath.Join(dir, "none")}
	if got := execute(t, env, "ccrun-sim", "attest-server", "init", "--data", data, "--name", "127.0.0.1"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	got := execute(t, env, "ccrun-sim", "attest-server", "serve", "--data", data, "--listen", "127.0.0.1:0")
	if got.code != face.Failed || !strings.Contains(got.stderr, "ccrun-sim init") {
		t.Errorf("%+v", got)
	}
}

// fakeCrun records how it is executed.
func fakeCrun(t *testing.T) (bin, record string) {
	t.Helper()
	bin = t.TempDir()
	record = filepath.Join(bin, "record")
	script := "#!/bin/sh\nfor a in \"$0\" \"$@\"; do echo \"$a\"; done >" + record + "\nexit 9\n"
	if err := os.WriteFile(filepath.Join(bin, "crun"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return bin, record
}

func TestRuntimeBecomesCrun(t *testing.T) {
	bin, record := fakeCrun(t)
	env := []string{"PATH=" + bin + ":/usr/bin:/bin"}
	got := execute(t, env, "/anywhere/"+sim.RuntimeName, "--root", "/r", "state", "c0ffee")
	if got.code != 9 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	b, err := os.ReadFile(record)
	if want := filepath.Join(bin, "crun") + "\n--root\n/r\nstate\nc0ffee\n"; err != nil || string(b) != want {
		t.Errorf("executed %q, %v", b, err)
	}
	if got := execute(t, env, sim.RuntimeName, "--help"); !strings.Contains(got.stdout, notice) || got.code != 9 {
		t.Errorf("help: %+v", got)
	}
}

// Podman reads the reason of a failure from the log that it names.
func TestRuntimeLogsForPodman(t *testing.T) {
	bin, record := fakeCrun(t)
	log := filepath.Join(bin, "log")
	got := execute(t, []string{"PATH=" + bin + ":/usr/bin:/bin"}, sim.RuntimeName,
		"--log", log, "--log-format=json", "create", "--bundle", "/nonexistent", "id")
	if got.code == 0 || !strings.Contains(got.stderr, notice) {
		t.Errorf("%+v", got)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var line struct{ Msg, Level, Time string }
	if err := json.Unmarshal(b, &line); err != nil || line.Level != "error" || !strings.Contains(line.Msg, notice) ||
		!strings.Contains(line.Msg, "/nonexistent/config.json") {
		t.Errorf("log %q, %v", b, err)
	}
	if _, err := os.Stat(record); err == nil {
		t.Error("crun was executed all the same")
	}
}
