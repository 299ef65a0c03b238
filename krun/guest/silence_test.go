package guest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deaths are ways in which a Go program ends without wanting to. Each has a
// word in hand that must not be seen.
func deaths() map[string]func(word string) {
	var deep func(s string) string
	deep = func(s string) string { return deep(s+"x") + s }
	signal := func(sig unix.Signal) func(string) {
		return func(string) {
			_ = unix.Kill(os.Getpid(), sig)
			time.Sleep(time.Minute)
		}
	}
	return map[string]func(string){
		"panic":           func(word string) { panic(word) },
		"apart":           func(word string) { go panic(word); time.Sleep(time.Minute) },
		"nil":             func(string) { var p *int; *p = 1 },
		"stack overflow":  func(word string) { debug.SetMaxStack(1 << 16); deep(word) },
		"out of memory":   func(string) { useUp() },
		"SIGQUIT":         signal(unix.SIGQUIT),
		"SIGABRT":         signal(unix.SIGABRT),
		"SIGSEGV":         signal(unix.SIGSEGV),
		"unlocked unlock": func(string) { var m lockedTwice; m.unlock() },
	}
}

// useUp asks for more memory than the process may have.
func useUp() {
	limit := unix.Rlimit{Cur: 1 << 30, Max: 1 << 30}
	_ = unix.Setrlimit(unix.RLIMIT_AS, &limit)
	var all [][]byte
	for len(all) < 1<<20 {
		all = append(all, make([]byte, 64<<20))
	}
	runtime.KeepAlive(all)
}

const dyingWord = "word-that-must-not-be-seen"

// TestDying is the process that TestDeathIsSilent starts.
func TestDying(t *testing.T) {
	way, loud := os.Getenv("CCRUN_TEST_DEATH"), os.Getenv("CCRUN_TEST_LOUD") != ""
	if way == "" {
		t.Skip("TestDying is started by TestDeathIsSilent")
	}
	if !loud {
		voice, err := silence()
		if err != nil {
			_, _ = voice.WriteString(err.Error())
			os.Exit(1)
		}
		_, _ = voice.WriteString("voice\n")
	}
	deaths()[way](dyingWord)
}

// TestDeathIsSilent: whatever this program dies of, and whatever the environment
// asks of Go's runtime, the host reads nothing but what was meant for it. Each
// death is heard if silence was not called.
func TestDeathIsSilent(t *testing.T) {
	t.Parallel()
	for way := range deaths() {
		for _, loud := range []bool{false, true} {
			cmd := exec.Command(os.Args[0], "-test.run=^TestDying$", "-test.timeout=50s")
			cmd.Dir = t.TempDir()
			cmd.Env = []string{"CCRUN_TEST_DEATH=" + way, "GOTRACEBACK=crash", "GOMAXPROCS=2"}
			if loud {
				cmd.Env = append(cmd.Env, "CCRUN_TEST_LOUD=1")
			}
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			if err == nil {
				t.Errorf("%s: did not die", way)
			}
			switch {
			case !loud && out.String() != "voice\n":
				t.Errorf("%s: the host reads %.300q", way, out.String())
			case loud && !strings.Contains(out.String(), "goroutine") && !strings.Contains(out.String(), "fatal"):
				t.Errorf("%s: is silent anyhow: %.300q", way, out.String())
			}
			if left, _ := filepath.Glob(filepath.Join(cmd.Dir, "*core*")); len(left) > 0 && !loud {
				t.Errorf("%s: left %v", way, left)
			}
		}
	}
}

func TestSteersRuntime(t *testing.T) {
	for env, want := range map[string]bool{"": false, "HOME=/ TERM=linux": false, "HOME=/ GOTRACEBACK=crash": true, "GODEBUG=x": true, "LOGO=1": false} {
		if got := steersRuntime(strings.Fields(env)); got != want {
			t.Errorf("%q: %t", env, got)
		}
	}
}

func TestKernelSilent(t *testing.T) {
	full := map[string]string{"printk": "0\t4\t1\t7\n", "sysrq": "0\n", "panic_on_oops": "1\n", "ostype": "Linux\n"}
	for name, c := range map[string]struct {
		change map[string]string // "-": not there
		ok     bool
	}{
		"as set":             {nil, true},
		"without sysrq":      {map[string]string{"sysrq": "-"}, true},
		"without printk":     {map[string]string{"printk": "-"}, true},
		"no settings at all": {map[string]string{"printk": "-", "sysrq": "-", "panic_on_oops": "-", "ostype": "-"}, false},
		"talks":              {map[string]string{"printk": "1\t4\t1\t7\n"}, false},
		"talks much":         {map[string]string{"printk": "10 4 1 7"}, false},
		"empty":              {map[string]string{"printk": ""}, false},
		"sysrq is on":        {map[string]string{"sysrq": "1"}, false},
		"oops goes on":       {map[string]string{"panic_on_oops": "0"}, false},
	} {
		dir := t.TempDir()
		for file, text := range full {
			if v, ok := c.change[file]; ok {
				text = v
			}
			if text == "-" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := checkKernelSilent(dir); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnoughMemory(t *testing.T) {
	for _, c := range []struct {
		need, free int64
		ok         bool
	}{{64 << 20, 0, false}, {64 << 20, 79 << 20, false}, {64 << 20, 80 << 20, true}, {1 << 30, 400 << 20, false}, {1 << 20, 400 << 20, true}} {
		if err := enoughMemory(c.need, c.free); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if freeMemory() <= 0 {
		t.Error("the kernel does not say what is free")
	}
}

// lockedTwice is unlocked without having been locked, which go vet does not see
// and the runtime takes for a fatal error.
type lockedTwice struct{ sync.Mutex }

func (l *lockedTwice) unlock() { l.Mutex.Unlock() }
