package guest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

// shutDown closes the disk, reports the exit status and ends the VM.
func (b *boot) shutDown(status int) {
	defer func() {
		_ = recover()
		b.end()
	}()
	b.diskKey.Wipe()
	within(closeTimeout, b.closeDisk, func() {
		b.console.line(fmt.Sprintf("closing the disk takes longer than %s: going on without; next: check the host's disk", closeTimeout))
	})
	b.console.timing("disk closed")
	b.log.end(status, b.detail)
	b.report(status)
}

// report gives the host the guest's last word.
func (b *boot) report(status int) {
	if b.control == nil { // libkrun ends with status 0 whatever happened in the VM
		b.console.print("", krun.StatusLine(status))
		return
	}
	if err := b.control.sayExit(status); err != nil {
		b.console.fail(fmt.Errorf("reporting exit status %d: %w", status, err))
	}
}

// end ends the VM, if this is one.
func (b *boot) end() {
	if b.powerOff != nil {
		b.powerOff()
	}
}

// powerOff ends the VM. Restart, not power-off: libkrun's guests have no ACPI
// and end by the keyboard controller's reset (reboot=k), and QEMU runs with
// -no-reboot.
func powerOff() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// abandon ends the VM as it is: whatever it waits for is in the host's hand.
func (b *boot) abandon(cause error) {
	err := fmt.Errorf("%s: %w", b.at.Load(), cause)
	b.console.fail(err)
	status := statusBootFailed
	if s := (*statusError)(nil); errors.As(cause, &s) {
		status = s.status
	}
	b.log.end(status, err.Error())
	b.report(status)
	b.end()
}
