package guest

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// runDeviceProgram is what the program returns for a device: a machine for the
// few instructions that it has.
func runDeviceProgram(t *testing.T, kind, major, minor uint32) int32 {
	t.Helper()
	var r [11]uint32
	context := map[int16]uint32{0: 7<<16 | kind, 4: major, 8: minor}
	program := deviceProgram()
	for at, steps := 0, 0; at < len(program) && steps < 1000; at, steps = at+1, steps+1 {
		i := program[at]
		to := i.registers & 15
		switch i.code {
		case 0x61:
			r[to] = context[i.offset]
		case 0x57:
			r[to] &= uint32(i.value)
		case 0xb7:
			r[to] = uint32(i.value)
		case 0x15:
			if r[to] == uint32(i.value) {
				at += int(i.offset)
			}
		case 0x55:
			if r[to] != uint32(i.value) {
				at += int(i.offset)
			}
		case 0x95:
			return int32(r[0])
		default:
			t.Fatalf("instruction %#x", i.code)
		}
	}
	t.Fatal("the program does not end")
	return 0
}

func TestDeviceProgram(t *testing.T) {
	allowed := map[[3]uint32]bool{{2, 5, 2}: true, {2, 136, 0}: true, {2, 136, 7}: true}
	for _, d := range defaultDevices() {
		allowed[[3]uint32{2, d.major, d.minor}] = true
	}
	for kind := uint32(0); kind < 4; kind++ {
		for _, major := range []uint32{0, 1, 5, 10, 136, 137, 253, 254} {
			for minor := range uint32(130) {
				want := allowed[[3]uint32{kind, major, minor}] || kind == 2 && major == 136
				if got := runDeviceProgram(t, kind, major, minor); (got == 1) != want || got != 0 && got != 1 {
					t.Errorf("kind %d, %d:%d: %d", kind, major, minor, got)
				}
			}
		}
	}
}

// TestDeviceProgramLoads: the kernel's verifier takes the program.
func TestDeviceProgramLoads(t *testing.T) {
	fd, err := loadDeviceProgram()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("TestDeviceProgramLoads needs the right to load BPF programs: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
}

// TestDevicesRefused: who may make device nodes is in no such group.
func TestDevicesRefused(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mknod(dir+"/x", unix.S_IFCHR, int(unix.Mkdev(10, 124))); err != nil {
		t.Skipf("TestDevicesRefused needs the right to make device nodes: %v", err)
	}
	if err := checkDevicesRefused(dir); err == nil {
		t.Error("not refused, and no error")
	}
}
