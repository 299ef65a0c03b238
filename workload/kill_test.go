package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/scratch"
)

// childSpec is what a build in a child process needs to know.
type childSpec struct {
	Source, Destination, Firmware, TempDir, Record, Policy string
	Stage                                                  string
	Done                                                   int64
	Measure                                                bool // build without stopping, and say what it took
	Filesystem                                             string
	SizeBytes                                              int64
}

// killedChild builds and stops dead at a point, saying so, to be killed.
func killedChild() {
	var s childSpec
	if err := json.Unmarshal([]byte(os.Getenv("CCRUN_TEST_CHILD")), &s); err != nil {
		panic(err)
	}
	if s.Measure {
		measuredChild(s)
		return
	}
	o := s.options()
	o.SizeBytes, o.Filesystem = 16<<20, "ext4"
	o.Progress = func(stage string, done, _ int64) {
		if strings.HasPrefix(stage, s.Stage) && done >= s.Done {
			fmt.Println("here")
			time.Sleep(time.Minute)
		}
	}
	_, err := Build(context.Background(), o)
	fmt.Println("build ended:", err)
}

// TestKill kills builds with SIGKILL while they read and while they write:
// no file with plaintext, no half image, no record may be left, whatever the
// kind of source and destination.
func TestKill(t *testing.T) {
	t.Parallel()
	layout := t.TempDir()
	m := imagetest.App(t)
	m.WriteLayout(t, layout)
	archive := filepath.Join(t.TempDir(), "a.tgz")
	imagetest.WriteFile(t, archive, imagetest.Gzip(t, imagetest.TarOfDir(t, layout)))
	saved := filepath.Join(t.TempDir(), "d.tgz")
	imagetest.WriteFile(t, saved, imagetest.Gzip(t, m.DockerSave(t)))
	for _, stage := range []string{"reading", "encrypting"} {
		for source, transport := range map[string]string{
			"oci:" + layout: "oci:", "oci-archive:" + archive: "oci-archive:", "docker-archive:" + saved: "docker-archive:",
			"oci-archive:" + archive + ":": "dir:",
		} {
			t.Run(transport+stage, func(t *testing.T) {
				out := t.TempDir()
				s := childSpec{
					Source: strings.TrimSuffix(source, ":"), Destination: transport + filepath.Join(out, "image"), Firmware: testFirmware(t),
					TempDir: t.TempDir(), Record: filepath.Join(out, "record"), Policy: imagetest.System(t).SignaturePolicyPath, Stage: stage,
				}
				if stage == "encrypting" {
					s.Done = 8 << 20
				}
				runAndKill(t, s)
				imagetest.NoCanary(t, s.TempDir, out)
				imagetest.Empty(t, out)
				imagetest.Empty(t, s.TempDir)
			})
		}
	}
}

func runAndKill(t *testing.T, s childSpec) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CCRUN_TEST_CHILD="+string(imagetest.JSON(t, s)), "TMPDIR="+s.TempDir)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	n, err := pipe.Read(line)
	killed := cmd.Process.Kill()
	_ = cmd.Wait() // killed: its status says so
	if err != nil || killed != nil || !strings.HasPrefix(string(line[:n]), "here") {
		t.Fatalf("child said %q (%v, %v)", line[:n], err, killed)
	}
}

// TestKillStorage kills a build into local storage: what the library had in a
// named file is ciphertext, and the next build removes it.
func TestKillStorage(t *testing.T) {
	t.Parallel()
	layout := t.TempDir()
	imagetest.App(t).WriteLayout(t, layout)
	out := t.TempDir()
	s := childSpec{
		Source: "oci:" + layout, Destination: privateStore(t) + "localhost/app:1", Firmware: testFirmware(t), TempDir: t.TempDir(),
		Record: filepath.Join(out, "record"), Policy: imagetest.System(t).SignaturePolicyPath, Stage: "encrypting", Done: 8 << 20,
	}
	runAndKill(t, s)
	imagetest.NoCanary(t, s.TempDir, out)
	imagetest.Empty(t, out)
	imagetest.Age(t, s.TempDir, 2*scratch.Grace)
	o := testOptions(t, &fakeServer{})
	o.TempDir = s.TempDir
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	imagetest.Empty(t, s.TempDir)
}
