package command

import (
	"testing"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/cmd/face/facetest"
)

// TestLinesOfServer: each command line that a document, a unit, a help text or
// a hint gives exists, with its flags.
func TestLinesOfServer(t *testing.T) {
	const name = "attest-server"
	app := Program{Program: face.Program{Name: name}}.App()
	lines := facetest.Documents(t, "../../..", name, facetest.Texts()...)
	lines = append(lines, facetest.Sources(t, "../../..", name)...)
	lines = append(lines, facetest.Help(app, name)...)
	if n := facetest.Check(t, app, lines); n < 100 {
		t.Errorf("only %d command lines found", n)
	}
}
