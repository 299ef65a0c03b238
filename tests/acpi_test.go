package tests

import (
	"errors"
	"os"
	"testing"

	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
)

// TestHostileACPI: the simulator's kernel runs a hostile table's code where
// nothing stops it (else the table would prove nothing), and none of it with the
// words that belong on the command line. A name that the kernel does not know
// stops nothing, and is found out.
func TestHostileACPI(t *testing.T) {
	endToEnd(t)
	fw, err := firmware.Load(os.Getenv("CCRUN_SIM_FIRMWARE"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cmdline string
		want    error
	}{
		"as made":      {fw.Cmdline, nil},
		"stopped":      {"console=ttyS0 " + measure.StopsACPI, nil},
		"nothing":      {"console=ttyS0", machine.ErrHostACPI},
		"unknown name": {"console=ttyS0 " + measure.StopsACPI + "2", machine.ErrHostACPI},
	} {
		t.Run(name, func(t *testing.T) {
			b := *fw
			b.Cmdline = c.cmdline
			if err := machine.ProbeACPI(t.Context(), &b); !errors.Is(err, c.want) {
				t.Errorf("with %q: %v, expected %v", c.cmdline, err, c.want)
			} else if err != nil {
				t.Log(err)
			}
		})
	}
}
