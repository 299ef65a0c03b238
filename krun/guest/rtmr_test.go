package guest

import (
	"crypto/sha512"
	"os"
	"path/filepath"
	"testing"
)

// processor extends as the TDX module does.
type processor struct {
	now   [sha512.Size384]byte
	stuck bool
}

func (p *processor) value() ([]byte, error) { return append([]byte(nil), p.now[:]...), nil }

func (p *processor) extend(event []byte) error {
	if !p.stuck {
		p.now = sha512.Sum384(append(p.now[:], event...))
	}
	return nil
}

// TestSpoilQuotes: what counts is that the register has changed.
func TestSpoilQuotes(t *testing.T) {
	var p processor
	if err := spoilQuotes(&p); err != nil || p.now == (processor{}).now {
		t.Errorf("RTMR 3 is %x, %v", p.now, err)
	}
	if err := spoilQuotes(&processor{stuck: true}); err == nil {
		t.Error("a register that stays as it was passes")
	}
	path := filepath.Join(t.TempDir(), "rtmr3:sha384")
	if err := spoilQuotes(sysfsRegister(path)); err != nil {
		t.Errorf("a kernel that cannot: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the register was made")
	}
	if err := os.WriteFile(path, make([]byte, sha512.Size384), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := spoilQuotes(sysfsRegister(path)); err == nil {
		t.Error("a file that only keeps what is written passes")
	}
}
