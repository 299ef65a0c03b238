package tests

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs the command line scripts under testdata/script against the
// real binaries. Commands of ours: `mkimage DIR` writes an OCI layout of a
// tiny image with CANARY in it, `server` starts a trust anchor that takes
// sample Evidence.
func TestScript(t *testing.T) {
	endToEnd(t)
	bin, firmware := binDir(t), os.Getenv("CCRUN_SIM_FIRMWARE")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			for name, value := range map[string]string{
				"PATH": bin + ":" + os.Getenv("PATH"), "FIRMWARE": firmware, "BIN": bin,
				"HOME": e.WorkDir, "TMPDIR": e.WorkDir, "CCRUN_SIM_ROOT": filepath.Join(e.WorkDir, "sample"),
				"PORT": freePort(t), "XDG_RUNTIME_DIR": e.WorkDir,
			} {
				e.Setenv(name, value)
			}
			e.Setenv("CCRUN_CA", filepath.Join(e.WorkDir, "srv/ca.pem"))
			e.Setenv("CCRUN_TOKEN_FILE", filepath.Join(e.WorkDir, "token"))
			e.Setenv("CCRUN_SERVER", "https://127.0.0.1:"+e.Getenv("PORT"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkimage": func(ts *testscript.TestScript, _ bool, args []string) {
				noise := make([]byte, 64<<10) // so that the layer is the largest blob
				_, _ = rand.Read(noise)
				writeOCI(t, ts.MkAbs(args[0]), map[string]any{
					"Entrypoint": []string{"/bin/app"}, "Env": []string{"PATH=/bin"}, "ExposedPorts": map[string]any{"8080/tcp": map[string]any{}},
				}, []entry{dir("bin", 0o755), file("bin/app", 0o755, append(noise, strings.Repeat("CANARY-PLAINTEXT ", 100)...))})
			},
			"server": startScriptServer,
			"truncate": func(ts *testscript.TestScript, _ bool, args []string) {
				matches, err := filepath.Glob(ts.MkAbs(args[0]))
				ts.Check(err)
				for _, m := range matches {
					if info, err := os.Stat(m); err == nil && info.Size() > 1000 {
						ts.Check(os.Truncate(m, info.Size()/2))
					}
				}
			},
			"nocanary": func(ts *testscript.TestScript, _ bool, args []string) {
				out, _ := exec.Command("grep", append([]string{"-rlF", "CANARY-PLAINTEXT"}, absAll(ts, args)...)...).Output()
				if len(out) > 0 {
					ts.Fatalf("plaintext found in: %s", out)
				}
			},
		},
	})
}

func absAll(ts *testscript.TestScript, args []string) (abs []string) {
	for _, a := range args {
		abs = append(abs, ts.MkAbs(a))
	}
	return abs
}

func startScriptServer(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(ts.Exec("ccrun-sim", "init"))
	ts.Check(ts.Exec("ccrun-sim", "attest-server", "init", "--data", ts.MkAbs("srv"), "--name", "127.0.0.1", "--token-out", ts.MkAbs("token")))
	port := ts.Getenv("PORT")
	cmd := exec.Command(filepath.Join(ts.Getenv("BIN"), "ccrun-sim"), "attest-server", "serve", "--data", ts.MkAbs("srv"), "--listen", "127.0.0.1:"+port)
	cmd.Env = append(os.Environ(), "CCRUN_SIM_ROOT="+ts.Getenv("CCRUN_SIM_ROOT"))
	ts.Check(cmd.Start())
	ts.Defer(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	ready := func() bool {
		return exec.Command("curl", "-sfo", "/dev/null", "--cacert", ts.MkAbs("srv/ca.pem"), "https://127.0.0.1:"+port+"/readyz").Run() == nil
	}
	if !eventually(ready) {
		ts.Fatalf("server did not start")
	}
}
