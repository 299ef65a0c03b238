package machine

// cpuid is the instruction, with ECX 0.
func cpuid(leaf uint32) (eax, ebx uint32)

// Leaves of CPUID (AMD64 Architecture Programmer's Manual, volume 3, appendix E).
const (
	cpuidLargestExtended = 0x80000000
	cpuidEncryption      = 0x8000001f // EBX: bits 5 to 0, the C-bit's position
)

// hostCBit asks this processor for the position; 0 of one that has none.
func hostCBit() uint {
	if last, _ := cpuid(cpuidLargestExtended); last < cpuidEncryption {
		return 0
	}
	_, ebx := cpuid(cpuidEncryption)
	return uint(ebx & 0x3f)
}
