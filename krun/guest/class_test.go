package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
)

// word is in every part of a configuration that an error could quote.
const word = "codename"

// contentErrors are the ways in which what is on the disk keeps a workload from
// starting, as they come from the code.
func contentErrors(t *testing.T) map[string]struct {
	err  error
	want class
} {
	dir := filepath.Join(t.TempDir(), word)
	for path, mode := range map[string]os.FileMode{"plain": 0o644, "dir/x": 0o644, "etc/passwd": 0o644} {
		full := filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(word), mode)); err != nil {
			t.Fatal(err)
		}
	}
	_, inPath := lookUp(word+"-tool", dir, "/")
	_, absent := lookUp(dir+"/tool", "", "/")
	_, plain := lookUp(dir+"/plain", "", "/")
	_, noFile := lookUp(dir+"/dir", "", "/")
	_, relative := workingDirectory(word, process.Credentials{})
	_, notDir := workingDirectory(dir+"/plain/below", process.Credentials{})
	s := &stage{spec: &stageSpec{Process: krun.Process{User: word}}}
	key := testProcessKey()
	decode := func(text string) error {
		_, err := decodeProcess([]byte(text), key, krun.ProcessDigest(key, []byte(text)))
		return err
	}
	_, changed := decodeProcess([]byte(`{"Env":["`+word+`"]}`), key, kbs.Digest{1})
	type want = struct {
		err  error
		want class
	}
	return map[string]want{
		"program not in PATH":      {inPath, classNotFound},
		"program absent":           {absent, classNotFound},
		"program not executable":   {plain, classNotExecutable},
		"program a directory":      {noFile, classNotExecutable},
		"program does not verify":  {&statusError{126, classed(classNotExecutable, &os.PathError{Op: "stat", Path: "/opt/" + word, Err: unix.EIO})}, classDamaged},
		"relative directory":       {classed(classDirectory, relative), classDirectory},
		"directory below a file":   {classed(classDirectory, notDir), classDirectory},
		"user":                     {s.lookUpUser(), classUser},
		"configuration":            {decode(`{"` + word + `":1}`), classConfiguration},
		"stop signal":              {decode(strings.Replace(processJSON, `"StopSignal":""`, `"StopSignal":"`+word+`"`, 1)), classConfiguration},
		"no command":               {decode(`{"Entrypoint":null,"Cmd":null,"Env":["` + word + `=1"],"WorkingDir":"","User":"","StopSignal":""}`), classConfiguration},
		"changed configuration":    {changed, classChanged},
		"damaged file system":      {(&boot{}).mountRoot(mount{"/" + word, filepath.Join(dir, "mnt"), "ext4", 0, ""}), classDamaged},
		"volume":                   {classed(classDirectory, &os.PathError{Op: "stat", Path: "/" + word, Err: unix.ENOTDIR}), classDirectory},
		"disk full":                {&os.PathError{Op: "write", Path: "/etc/" + word, Err: unix.ENOSPC}, classSpace},
		"no memory":                {classed(classDirectory, fmt.Errorf("mounting %s: %w", word, unix.ENOMEM)), classMemory},
		"read-only":                {&os.PathError{Op: "write", Path: "/etc/" + word, Err: unix.EROFS}, classReadOnly},
		"kernel lacks something":   {fmt.Errorf("mounting %s: %w", word, unix.ENODEV), classUnsupported},
		"kernel refuses":           {fmt.Errorf("mounting %s: %w", word, unix.EPERM), classRefused},
		"what nobody thought of":   {errors.New(word), classInternal},
		"what nobody ever said of": {fmt.Errorf("%w and %w", errors.New(word), &statusError{3, errors.New(word)}), classInternal},
	}
}

// TestErrorsAreDiscreet: of what is on the disk the host learns a class and the
// next step, whatever the error says, and the exit status is the one that
// Podman gives.
func TestErrorsAreDiscreet(t *testing.T) {
	for name, c := range contentErrors(t) {
		if c.err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		b, out := testBoot()
		b.mapped = "/dev/dm-2"
		got := b.live([]step{{"working on it", func(*boot, context.Context) error { return c.err }}})
		line := out.String()
		want := "ccrun-init: working on it: " + c.want.String() + "; next: " + remedies()[c.want].next + "\n"
		if line != want || strings.Contains(line, word) {
			t.Errorf("%s: the host reads %q, expected %q", name, line, want)
		}
		if s := status(c.err); s != 0 && got != s || s == 0 && got != statusBootFailed {
			t.Errorf("%s: status %d for %v", name, got, c.err)
		}
	}
}

// TestErrorsBeforeTheDiskAreTold as they are, and so are those that a step after
// it has marked: there is nothing of the disk in them.
func TestErrorsBeforeTheDiskAreTold(t *testing.T) {
	plain := errors.New("server answers 503")
	for name, c := range map[string]struct {
		mapped string
		run    func(*boot, context.Context) error
		told   bool
	}{
		"before":            {"", func(*boot, context.Context) error { return plain }, true},
		"after":             {"/dev/dm-0", func(*boot, context.Context) error { return plain }, false},
		"after, marked":     {"/dev/dm-0", told(func(*boot, context.Context) error { return plain }), true},
		"stopped by a host": {"/dev/dm-0", func(b *boot, _ context.Context) error { b.hostSignal(unix.SIGTERM); return errors.New(word) }, false},
	} {
		b, out := testBoot()
		b.mapped = c.mapped
		_ = b.live([]step{{"trying", c.run}})
		if strings.Contains(out.String(), plain.Error()) != c.told || strings.Contains(out.String(), word) {
			t.Errorf("%s: %q", name, out)
		}
	}
}

// TestStagePanicsAreDiscreet: the stage tells where it failed by its table, in
// which nothing of an image is.
func TestStagePanicsAreDiscreet(t *testing.T) {
	s := &stage{}
	err := s.become([]stageStep{{"fine", func(*stage) error { return nil }}, {"bad", func(*stage) error { panic(word) }}})
	if err == nil || s.at != 1 || classOf(err) != classInternal || strings.Contains(err.Error(), word) {
		t.Errorf("at %d: %v", s.at, err)
	}
}

// TestClassesAreDocumented: the host's operator has nothing else.
func TestClassesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for c, r := range remedies() {
		if !strings.Contains(string(doc), "| `"+string(c)+"` |") || r.text == "" || r.next == "" {
			t.Errorf("%s is not explained", c)
		}
	}
	if got := class(word).String(); strings.Contains(got, word) {
		t.Errorf("an unknown class is told as %q", got)
	}
}
