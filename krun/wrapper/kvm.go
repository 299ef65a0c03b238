package wrapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
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

// statDevice reads the number that the host's kernel gave a device: SEV's is
// dynamic.
func statDevice(path, source string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	err := unix.Stat(source, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return specs.LinuxDevice{}, hint.With(fmt.Errorf("the host has no %s", path),
			"this image runs only on a host with SEV-SNP enabled; see `ccrun doctor`")
	}
	if err != nil {
		return specs.LinuxDevice{}, &os.PathError{Op: "stat", Path: source, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return specs.LinuxDevice{}, fmt.Errorf("%s is not a character device", source)
	}
	mode, root := os.FileMode(0o666), uint32(0)
	return specs.LinuxDevice{Path: path, Type: "c", Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: &mode, UID: &root, GID: &root}, nil
}

// checkSNP says what libkrun calls VmFd(Error(22)): a host can have /dev/sev
// without SEV-SNP. Where nobody can tell, libkrun finds out.
func checkSNP(kvm string, makes func(string) (bool, error)) error {
	if has, err := makes(kvm); has || err != nil {
		return nil
	}
	return hint.With(errors.New("KVM on this host makes no SEV-SNP machines"),
		"this image runs only on a host with SEV-SNP enabled; see `ccrun doctor`")
}
