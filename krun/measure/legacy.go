package measure

import (
	"crypto/sha256"
	"fmt"
)

// Legacy computes the measurement of an SEV or SEV-ES guest of libkrun up to
// 1.10: SHA-256 over qboot, kernel, initrd, boot parameters and, for SEV-ES,
// the save area of each vCPU.
func Legacy(p Profile, in Inputs, s Shape) ([32]byte, error) {
	if p != LegacySEV && p != LegacySEVES {
		return [32]byte{}, fmt.Errorf("measuring: profile %q: %w", p, ErrProfile)
	}
	if err := s.check(p); err != nil {
		return [32]byte{}, fmt.Errorf("measuring for %s: %w", p, err)
	}
	if err := in.checkLibkrun(s); err != nil {
		return [32]byte{}, fmt.Errorf("measuring for %s: %w", p, err)
	}
	h := sha256.New()
	h.Write(in.QBoot)
	h.Write(in.Kernel)
	h.Write(in.Initrd)
	zp := zeroPage(KrunfwTool, s, uint32(len(in.Initrd)))
	h.Write(zp[:])
	for i := range s.CPUs {
		if p == LegacySEV {
			break
		}
		v := vmsaES(i == 0)
		h.Write(v[:])
	}
	return [32]byte(h.Sum(nil)), nil
}
