package luks

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	dmControl   = "/dev/mapper/control"
	dmNameBytes = 127 // without the terminator
	// dmBufferBytes holds a request with one target: header, spec, parameters.
	dmBufferBytes = 4096
)

// deviceMapper is an open control device.
type deviceMapper struct{ f *os.File }

func openDeviceMapper() (*deviceMapper, error) {
	f, err := os.OpenFile(dmControl, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening device mapper (is dm_mod loaded?): %w", err)
	}
	return &deviceMapper{f: f}, nil
}

func (d *deviceMapper) close() { _ = d.f.Close() }

// call performs one ioctl and returns the answered header. The kernel wipes
// its copy of the request (DM_SECURE_DATA_FLAG), we wipe ours.
func (d *deviceMapper) call(request uint, name string, flags uint32, t *target) (*unix.DmIoctl, error) {
	if len(name) == 0 || len(name) > dmNameBytes {
		return nil, fmt.Errorf("device name of %d bytes, expected 1 to %d", len(name), dmNameBytes)
	}
	buf := make([]byte, dmBufferBytes)
	defer clear(buf)
	h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	h.Version = [3]uint32{4, 0, 0}
	h.Data_size = dmBufferBytes
	h.Data_start = unix.SizeofDmIoctl
	h.Flags = flags | unix.DM_SECURE_DATA_FLAG
	copy(h.Name[:], name)
	if t != nil {
		const at, n = unix.SizeofDmIoctl, unix.SizeofDmTargetSpec
		if at+n+len(t.params)+1 > len(buf) {
			return nil, fmt.Errorf("device mapper parameters of %d bytes are too long", len(t.params))
		}
		spec := (*unix.DmTargetSpec)(unsafe.Pointer(&buf[at]))
		spec.Length = uint64(t.sectors)
		copy(spec.Target_type[:len(spec.Target_type)-1], t.kind)
		copy(buf[at+n:], t.params)
		h.Target_count = 1
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&buf[0])))
	runtime.KeepAlive(buf)
	if errno != 0 {
		return nil, errno
	}
	answer := *h
	return &answer, nil
}

// create makes and starts a device and returns its number. The target's
// parameters are wiped.
func (d *deviceMapper) create(name string, t target, readOnly bool) (dev uint64, err error) {
	defer clear(t.params)
	h, err := d.call(unix.DM_DEV_CREATE, name, 0, nil)
	if err != nil {
		return 0, fmt.Errorf("creating device %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = d.remove(name)
		}
	}()
	var flags uint32
	if readOnly {
		flags = unix.DM_READONLY_FLAG
	}
	if _, err := d.call(unix.DM_TABLE_LOAD, name, flags, &t); err != nil {
		return 0, fmt.Errorf("loading %s table of %s (the kernel log says why): %w", t.kind, name, err)
	}
	if _, err := d.call(unix.DM_DEV_SUSPEND, name, 0, nil); err != nil { // without DM_SUSPEND_FLAG: resume
		return 0, fmt.Errorf("starting device %s: %w", name, err)
	}
	return h.Dev, nil
}

func (d *deviceMapper) remove(name string) error {
	if _, err := d.call(unix.DM_DEV_REMOVE, name, 0, nil); err != nil {
		return fmt.Errorf("removing device %s: %w", name, err)
	}
	return nil
}

// undo removes devices in the reverse order of their making.
func (d *deviceMapper) undo(names []string) {
	for _, n := range slices.Backward(names) {
		_ = d.remove(n)
	}
}
