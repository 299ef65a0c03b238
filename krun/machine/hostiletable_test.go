package machine

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestHostileTable: the bytes are a table by the rules, and, where there is a
// disassembler, the code that its comment says.
func TestHostileTable(t *testing.T) {
	b := HostileTable()
	var sum byte
	for _, x := range b {
		sum += x
	}
	if sum != 0 || string(b[:4]) != "SSDT" || int(binary.LittleEndian.Uint32(b[4:])) != len(b) || len(b) <= 36 {
		t.Errorf("sum %d, %q", sum, b)
	}
	iasl, err := exec.LookPath("iasl")
	if err != nil {
		t.Log("no iasl (acpica-tools) to disassemble it")
		return
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "t.aml"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(iasl, "-d", "t.aml")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dsl, err := os.ReadFile(filepath.Join(dir, "t.dsl"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(dsl)), " ")
	for _, want := range []string{"OperationRegion (PORT, SystemIO, 0x00E9, One)", "Field (PORT, ByteAcc, NoLock, Preserve) { BYTE, 8 }",
		"BYTE = 0x4C", `Scope (\_SB) { Device (EVIL) {`, `Name (_HID, "EVIL0001")`, "Method (_INI, 0, NotSerialized)", `BYTE = 0x4D`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}
