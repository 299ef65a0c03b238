package main

import (
	"testing"

	"github.com/ccrun/ccrun/cmd/face/facetest"
)

// TestLinesOfSim: each command line that a document, an example, a help text
// or a hint gives exists, with its flags.
func TestLinesOfSim(t *testing.T) {
	app := newApp()
	lines := facetest.Documents(t, "../..", "ccrun-sim", facetest.Texts()...)
	lines = append(lines, facetest.Sources(t, "../..", "ccrun-sim")...)
	lines = append(lines, facetest.Help(app, "ccrun-sim")...)
	if n := facetest.Check(t, app, lines, program.Raw...); n < 20 {
		t.Errorf("only %d command lines found", n)
	}
}
