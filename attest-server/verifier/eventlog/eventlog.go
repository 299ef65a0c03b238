// Package eventlog reads the event log of a confidential machine (the data of
// the ACPI table CCEL) and replays it. The log comes from the guest, through
// hands that nothing vouches for: only its digests are bound to a quote, by
// Check. Event data is bound only where DataHashed says so.
//
// Format: TCG PC Client Platform Firmware Profile 1.06, chapter 10 (crypto
// agile log); registers: UEFI 2.10, 38.4.1 (EFI_CC_MR_INDEX).
package eventlog

import (
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Limits of a log. CCEL areas are 64 KiB to 256 KiB.
const (
	MaxLogBytes   = 1 << 20
	MaxEvents     = 4096
	maxDataBytes  = 256 << 10
	maxAlgorithms = 8
)

// ErrFormat reports bytes that are not an event log.
var ErrFormat = errors.New("not a TCG crypto agile event log")

// Type is a TCG event type.
type Type uint32

// The event types that this module names.
const (
	NoAction          Type = 0x3
	Separator         Type = 0x4
	PlatformConfig    Type = 0xa
	EventTag          Type = 0x6
	VariableConfig    Type = 0x80000001
	VariableBoot      Type = 0x80000002
	BootApplication   Type = 0x80000003
	Action            Type = 0x80000007
	FirmwareBlob      Type = 0x80000008
	FirmwareBlob2     Type = 0x8000000a
	HandoffTables2    Type = 0x8000000b
	VariableBoot2     Type = 0x8000000c
	VariableAuthority Type = 0x800000e0
)

// MRTD is the Register of an event that claims to be part of the MRTD, which
// no event can be: Replay leaves it out.
const MRTD = -1

// Event is one entry.
type Event struct {
	Register int // RTMR 0 to 3, or MRTD
	Type     Type
	Digest   kbs.Digest // what the register was extended with
	Data     []byte
}

// DataHashed reports whether the digest is that of the data, so that the data
// is as trustworthy as the digest. Many types hash something else.
func (e *Event) DataHashed() bool { return kbs.Sum384(e.Data) == e.Digest }

// Extends reports whether the event was extended into a register.
func (e *Event) Extends() bool { return e.Type != NoAction && e.Register != MRTD }

// Log is a parsed event log.
type Log struct{ Events []Event }

// Register lists the events that were extended into RTMR i, in order.
func (l *Log) Register(i int) []Event {
	var list []Event
	for _, e := range l.Events {
		if e.Extends() && e.Register == i {
			list = append(list, e)
		}
	}
	return list
}

// Replay computes what the RTMRs hold after the log's events: each starts as
// zeros and becomes SHA-384 of itself and the digest (Intel TDX Module Base
// Architecture Specification, TDG.MR.RTMR.EXTEND).
func (l *Log) Replay() [4]kbs.Digest {
	var regs [4]kbs.Digest
	for i := range regs {
		for _, e := range l.Register(i) {
			regs[i] = Extend(regs[i], e.Digest)
		}
	}
	return regs
}

// Extend is one step of a replay.
func Extend(register, digest kbs.Digest) kbs.Digest {
	var both [96]byte
	copy(both[:], register[:])
	copy(both[48:], digest[:])
	return sha512.Sum384(both[:])
}

// Check replays the log and names the registers that a quote has otherwise.
func (l *Log) Check(quoted [4]kbs.Digest) error {
	var errs []error
	for i, got := range l.Replay() {
		if got != quoted[i] {
			errs = append(errs, fmt.Errorf("replaying event log: RTMR%d is %v, the quote has %v", i, got, quoted[i]))
		}
	}
	return errors.Join(errs...)
}

// String is the TCG name, or the number.
func (t Type) String() string {
	switch t {
	case NoAction:
		return "EV_NO_ACTION"
	case Separator:
		return "EV_SEPARATOR"
	case PlatformConfig:
		return "EV_PLATFORM_CONFIG_FLAGS"
	case EventTag:
		return "EV_EVENT_TAG"
	case VariableConfig:
		return "EV_EFI_VARIABLE_DRIVER_CONFIG"
	case VariableBoot:
		return "EV_EFI_VARIABLE_BOOT"
	case BootApplication:
		return "EV_EFI_BOOT_SERVICES_APPLICATION"
	case Action:
		return "EV_EFI_ACTION"
	case FirmwareBlob:
		return "EV_EFI_PLATFORM_FIRMWARE_BLOB"
	case FirmwareBlob2:
		return "EV_EFI_PLATFORM_FIRMWARE_BLOB2"
	case HandoffTables2:
		return "EV_EFI_HANDOFF_TABLES2"
	case VariableBoot2:
		return "EV_EFI_VARIABLE_BOOT2"
	case VariableAuthority:
		return "EV_EFI_VARIABLE_AUTHORITY"
	}
	return fmt.Sprintf("event type %#x", uint32(t))
}
