package wrapper

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Of linux/kvm.h and asm/kvm.h; see Documentation/virt/kvm/api.rst.
const (
	kvmGetAPIVersion  = 0xae00
	kvmCheckExtension = 0xae03
	kvmAPIVersion     = 12
	kvmCapVMTypes     = 235
	kvmSNPMachine     = 4 // KVM_X86_SNP_VM
	kvmTDXMachine     = 5 // KVM_X86_TDX_VM
)

// SNPMachines asks KVM at the device node whether it makes SEV-SNP machines.
// An error says that it cannot be told.
func SNPMachines(kvm string) (bool, error) { return makes(kvm, kvmSNPMachine) }

// TDXMachines asks whether it makes TDs.
func TDXMachines(kvm string) (bool, error) { return makes(kvm, kvmTDXMachine) }

func makes(kvm string, kind uint) (bool, error) {
	fd, err := unix.Open(kvm, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: kvm, Err: err}
	}
	defer unix.Close(fd)
	switch version, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), kvmGetAPIVersion, 0); {
	case errno != 0:
		return false, &os.PathError{Op: "asking KVM for its version", Path: kvm, Err: errno}
	case version != kvmAPIVersion:
		return false, &os.PathError{Op: "asking KVM for its version", Path: kvm, Err: errors.New("not that of KVM")}
	}
	types, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), kvmCheckExtension, kvmCapVMTypes)
	if errno != 0 {
		return false, &os.PathError{Op: "asking KVM for types of machines", Path: kvm, Err: errno}
	}
	return types&(1<<kind) != 0, nil
}
