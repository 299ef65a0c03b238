package main

import (
	"testing"

	"github.com/ccrun/ccrun/cmd/face/facetest"
)

// TestLinesOfCcrun: each command line that a document, an example, a help text
// or a hint gives exists, with its flags.
func TestLinesOfCcrun(t *testing.T) {
	app := newApp()
	lines := facetest.Documents(t, "../..", "ccrun", facetest.Texts()...)
	lines = append(lines, facetest.Sources(t, "../..", "ccrun")...)
	lines = append(lines, facetest.Help(app, "ccrun")...)
	if n := facetest.Check(t, app, lines, program.Raw...); n < 300 {
		t.Errorf("only %d command lines found", n)
	}
}
