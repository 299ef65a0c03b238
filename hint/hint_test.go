package hint

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

type empty struct{ error }

func (empty) Hint() string { return "" }

func TestOf(t *testing.T) {
	inner := With(io.EOF, "try %s", "again")
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nil":                        {nil, ""},
		"without":                    {io.EOF, ""},
		"direct":                     {inner, "try again"},
		"wrapped":                    {fmt.Errorf("reading: %w", inner), "try again"},
		"second of joined":           {errors.Join(io.EOF, inner), "try again"},
		"behind an empty one":        {errors.Join(empty{io.EOF}, inner), "try again"},
		"the outermost wins":         {With(inner, "other"), "other"},
		"an empty one hides nothing": {With(inner, ""), "try again"},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("%s: hint %q, expected %q", name, got, c.want)
		}
	}
}

func TestWith(t *testing.T) {
	if With(nil, "x") != nil {
		t.Error("a hint makes an error of nil")
	}
	err := With(io.EOF, "x")
	if err.Error() != "EOF" || !errors.Is(err, io.EOF) {
		t.Errorf("got %v, expected EOF itself", err)
	}
	if err := Usagef("--cpus %d", 0); !errors.Is(err, ErrUsage) || err.Error() != "invalid options: --cpus 0" {
		t.Errorf("got %v", err)
	}
}
