package command

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestPrintMachines: what an operator has to act on is told, and nothing of
// machines that are sound.
func TestPrintMachines(t *testing.T) {
	at, old := time.Date(2026, 12, 1, 2, 3, 4, 0, time.UTC), kbs.SNPTCB{SNP: 23}
	sound := kbs.Machine{ID: "01", TEE: kbs.SNP, Product: "Genoa", Silicon: "19/11/1", TCB: &kbs.SNPTCB{SNP: 27}, Highest: &kbs.SNPTCB{SNP: 27}, LastSeen: at}
	broken := sound
	broken.ID, broken.TCB, broken.Advisories, broken.DeniedAt = "02", &old, []string{"AMD-SB-3020", "AMD-SB-3027"}, &at
	var out bytes.Buffer
	if err := printMachines(&out, kbs.MachineList{Machines: []kbs.Machine{sound, broken}}); err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(out.String(), "\n02\n")
	for _, want := range []string{"WENT BACK from fmc 0 bootloader 0 tee 0 snp 27", "open: AMD-SB-3020, AMD-SB-3027", "DENIED since 2026-12-01T02:03:04Z", "\n2 machines\n"} {
		if !strings.Contains(second, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, word := range []string{"WENT BACK", "open:", "DENIED"} {
		if strings.Contains(first, word) {
			t.Errorf("%s of a sound machine in\n%s", word, out.String())
		}
	}
}

// TestMachinesCommand: a store that has seen nobody lists nobody.
func TestMachinesCommand(t *testing.T) {
	dir, _ := initDir(t)
	if out := mustRun(t, "machines", "--data", dir); out != "0 machines\n" {
		t.Error(out)
	}
	if out := mustRun(t, "machines", "--data", dir, "--advisory", "AMD-SB-3030", "--format", "json"); !strings.Contains(out, `"machines": []`) {
		t.Error(out)
	}
}
