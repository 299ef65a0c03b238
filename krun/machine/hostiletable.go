package machine

import "encoding/binary"

// A table for kernels that are said to run no code of the host's: an SSDT whose
// code writes a letter to I/O port HostilePort, where QEMU's debug console
// listens. One letter comes from code that runs while the table is loaded, one
// from the _INI method of a device, which runs later. Written by hand after the
// ACPI specification 6.5, chapter 20.

const (
	HostilePort    = 0xe9 // Bochs'; nothing else of the machine writes there, as SeaBIOS does to 0x402
	ranWhileLoaded = 'L'
	ranInMethod    = 'M'
)

// HostileTable is the table, with its header (section 5.2.6).
func HostileTable() []byte {
	b := []byte("SSDT")
	b = append(b, make([]byte, 4)...) // length
	b = append(b, 2, 0)               // revision, checksum
	b = append(b, "CCRUN HOSTILE "...)
	b = append(b, 1, 0, 0, 0)
	b = append(b, "CCRN"...)
	b = append(b, 1, 0, 0, 0)
	b = append(b, hostileCode()...)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	var sum byte
	for _, x := range b {
		sum += x
	}
	b[9] = -sum
	return b
}

// hostileCode is, in ASL:
//
//	OperationRegion (PORT, SystemIO, HostilePort, 1)
//	Field (PORT, ByteAcc, NoLock, Preserve) { BYTE, 8 }
//	BYTE = ranWhileLoaded
//	Scope (\_SB) { Device (EVIL) {
//	    Name (_HID, "EVIL0001")
//	    Method (_INI) { \BYTE = ranInMethod }
//	} }
func hostileCode() []byte {
	region := append([]byte{0x5b, 0x80}, "PORT"...)
	region = append(region, 1, 0x0b, HostilePort&0xff, HostilePort>>8, 1)
	field := aml([]byte{0x5b, 0x81}, []byte("PORT\x01BYTE\x08"))
	store := func(letter byte, name string) []byte { return append([]byte{0x70, 0x0a, letter}, name...) }
	method := aml([]byte{0x14}, append([]byte("_INI\x00"), store(ranInMethod, `\BYTE`)...))
	device := append([]byte("EVIL\x08_HID\x0dEVIL0001\x00"), method...)
	scope := aml([]byte{0x10}, append([]byte(`\_SB_`), aml([]byte{0x5b, 0x82}, device)...))
	code := append(region, field...)
	code = append(code, store(ranWhileLoaded, "BYTE")...)
	return append(code, scope...)
}

// aml is an opcode with the package length that counts itself and body
// (section 20.2.4), of one byte: up to 63.
func aml(opcode, body []byte) []byte {
	if len(body) > 62 {
		panic("package of more than one byte's length") // of constants
	}
	return append(append(opcode, byte(1+len(body))), body...)
}
