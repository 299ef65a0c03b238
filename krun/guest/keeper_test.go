package guest

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/secret"
)

// TestKeeperHasTheSecrets: what knows the DiskKey, or what follows from it, is
// the keeper's, in one row; PID 1 takes none of these steps.
func TestKeeperHasTheSecrets(t *testing.T) {
	var own, all []string
	for _, s := range stepsWithKeeper() {
		own = append(own, s.String())
	}
	for _, s := range bootSteps() {
		all = append(all, s.String())
	}
	for _, name := range []string{"obtaining the disk key", "unlocking the disk", "confirming the release"} {
		if !strings.Contains(strings.Join(all, "|"), name) || strings.Contains(strings.Join(own, "|"), name) {
			t.Errorf("%q is PID 1's: %q", name, own)
		}
	}
	if n := strings.Count(strings.Join(own, "|"), awaitingKeeper); n != 1 {
		t.Errorf("%d keepers: %q", n, own)
	}
	var kept []string
	for _, s := range keeperSteps() {
		kept = append(kept, s.String())
	}
	for i, name := range []string{"reading the kernel command line", "reading the identity", "looking for the processor's random numbers", "finding the disk"} {
		if kept[i] != name {
			t.Errorf("the keeper's step %d is %q, expected %q", i, kept[i], name)
		}
	}
	if last := own[len(own)-1]; last != "locking down the kernel" {
		t.Errorf("last is %q", last)
	}
}

// TestAwaitKeeper: what the keeper says is decoded strictly, and silence is no
// consent.
func TestAwaitKeeper(t *testing.T) {
	for said, want := range map[string]string{
		"": "without a word",
		`{"Mapped":"/dev/dm-2","Mounts":["/newroot"],"ReadOnly":true,"Process":{}}`: "",
		`{"Mapped":"/dev/dm-2","Key":"x"}`:                                          "unknown", `{`: "unexpected", `{} {}`: "after",
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.WriteString(said)
		_ = w.Close()
		k, err := awaitKeeper(t.Context(), r)
		if (err == nil) != (want == "") || err == nil && (k.Mapped != "/dev/dm-2" || !k.ReadOnly || len(k.Mounts) != 1) {
			t.Errorf("%s: %+v, %v", said, k, err)
		}
	}
}

// TestKeptHoldsNoSecret: of the boot's fields only these travel.
func TestKeptHoldsNoSecret(t *testing.T) {
	b, err := json.Marshal(kept{Failure: &failure{}})
	if want := `{"Mapped":"","Devices":null,"Mounts":null,"ReadOnly":false,"Process":null,"Failure":{"Status":0,"Text":"","Hint":""}}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}

// TestKeeperRefuses to start without what PID 1 gives it.
func TestKeeperRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {keeperName}, {keeperName, "soon"}, {keeperName, "1s", "x"}} {
		b, _ := testBoot()
		if err := b.keep(args, keeperSteps(), func(error) { t.Error("stuck") }); err == nil || errors.Is(err, errBootTimeout) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// testKeeperSteps are those of a keeper in these tests: it does as the file
// "keeper" in its working directory says.
func testKeeperSteps() []step {
	return []step{
		{"reading its part", func(b *boot, _ context.Context) error {
			part, err := os.ReadFile("keeper")
			if err != nil {
				return err
			}
			b.diskKey = secret.New(part)
			return nil
		}},
		{"playing its part", func(b *boot, ctx context.Context) error {
			switch part := string(b.diskKey.Reveal()); part {
			case "opens":
				b.mapped, b.devices, b.mounts, b.process = "/dev/dm-9", []string{"ccrun"}, []string{"/newroot"}, &krun.Process{Cmd: []string{"x"}}
				return os.WriteFile("pid", []byte(strconv.Itoa(os.Getpid())), 0o600)
			case "is denied":
				return &statusError{statusDenied, hint.With(errors.New("no"), "ask")}
			case "panics":
				panic("a secret")
			case "ends":
				os.Exit(0)
			case "forgets":
			case "is slow":
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}},
	}
}

// TestKeeper starts a keeper, as PID 1 does, and has it end in every way there
// is. None of them leaves it running, and only one is a success.
func TestKeeper(t *testing.T) {
	t.Chdir(t.TempDir())
	for part, want := range map[string]struct {
		status int
		says   string
	}{
		"opens":     {0, ""},
		"is denied": {77, "playing its part: no"},
		"panics":    {125, "panic while playing its part"},
		"ends":      {125, "without a word"},
		"forgets":   {125, "opened nothing"},
		"is slow":   {125, "took longer"},
	} {
		if err := os.WriteFile("keeper", []byte(part), 0o600); err != nil {
			t.Fatal(err)
		}
		b, out := testBoot()
		b.identity = &krun.Identity{}
		limit := time.Minute
		if part == "is slow" {
			limit = time.Second
		}
		b.limit = newLimit(limit, func() {})
		err := b.openByKeeper(t.Context())
		b.limit.stop()
		if err != nil {
			if got := b.failed(err); got != want.status || !strings.Contains(err.Error(), want.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: status %d, %v, said %q", part, got, err, out)
			}
		}
		if (err == nil) != (want.says == "") {
			t.Errorf("%s: %v", part, err)
		}
		if err == nil && (b.mapped != "/dev/dm-9" || len(b.mounts) != 1 || len(b.devices) != 1 || b.process == nil || b.diskKey.Len() != 0) {
			t.Errorf("%s: left %q, %q, %v", part, b.mapped, b.mounts, b.process)
		}
	}
	text, err := os.ReadFile("pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("the keeper that opened is still there: %v", err)
	}
}

// keeperSays is what PID 1 reads of what the keeper answers.
func keeperSays(t *testing.T, say func(*keeperAnswer)) kept {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	say(&keeperAnswer{result: w})
	k, err := awaitKeeper(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
