package face

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/ccrun/ccrun/secret"
)

// AskSecret is ReadSecret of standard input. Where that is a terminal, it asks
// with prompt, for one line, and the terminal does not show what is typed.
func AskSecret(ctx context.Context, in io.Reader, out io.Writer, prompt string) (secret.Bytes, error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return ReadSecret(in, "standard input")
	}
	shown, err := term.GetState(int(f.Fd()))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("asking for a secret: %w", err)
	}
	if _, err := io.WriteString(out, prompt); err != nil {
		return secret.Bytes{}, err
	}
	type typed struct {
		b   []byte
		err error
	}
	line := make(chan typed, 1)
	go func() {
		b, err := term.ReadPassword(int(f.Fd()))
		line <- typed{b, err}
	}()
	var t typed
	select {
	case t = <-line:
	case <-ctx.Done(): // Ctrl-C: nobody will end the read, nor show again what is typed
		t.err = ctx.Err()
		_ = term.Restore(int(f.Fd()), shown)
	}
	_, _ = fmt.Fprintln(out)
	if t.err != nil {
		return secret.Bytes{}, fmt.Errorf("asking for a secret: %w", t.err)
	}
	return secret.New(t.b), nil
}
