package face

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/secret"
)

// terminal is a new one: what its user has, and what programs read.
func terminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { user.Close() })
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return s.Lflag&unix.ECHO != 0
}

// TestAskSecret: what is typed at a terminal is not shown, and afterwards what is
// typed is again, also if the asking was interrupted.
func TestAskSecret(t *testing.T) {
	user, program := terminal(t)
	for _, interrupted := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var prompt strings.Builder
		var got secret.Bytes
		done := make(chan error, 1)
		go func() {
			var err error
			got, err = AskSecret(ctx, program, &prompt, "Token: ")
			done <- err
		}()
		for echoes(t, program) {
			time.Sleep(time.Millisecond)
		}
		if interrupted {
			cancel()
		} else if _, err := user.WriteString("the word\n"); err != nil {
			t.Fatal(err)
		}
		err := <-done
		if interrupted != errors.Is(err, context.Canceled) || !interrupted && string(got.Reveal()) != "the word" {
			t.Errorf("interrupted %v: %q, %v", interrupted, got.Reveal(), err)
		}
		if !echoes(t, program) || prompt.String() != "Token: \n" {
			t.Errorf("interrupted %v: echo %v, prompt %q", interrupted, echoes(t, program), prompt.String())
		}
	}
	if _, err := program.WriteString("end"); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	for b := make([]byte, 64); !strings.Contains(shown.String(), "end"); {
		n, err := user.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(b[:n])
	}
	if strings.Contains(shown.String(), "word") {
		t.Errorf("the terminal showed %q", shown.String())
	}
}

// TestAskNoTerminal: a pipe is read as a file is.
func TestAskNoTerminal(t *testing.T) {
	got, err := AskSecret(t.Context(), strings.NewReader("the word\n"), nil, "Token: ")
	if err != nil || string(got.Reveal()) != "the word" {
		t.Errorf("%q, %v", got.Reveal(), err)
	}
}
