package measure

import (
	"reflect"
	"slices"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
)

// TestSeries: what is remembered of the initrd before makes no other digest,
// wherever the next one differs.
func TestSeries(t *testing.T) {
	fw := &firmware.Bundle{Kind: firmware.KindQEMUDirect, Kernel: noise(2, 5000), Cmdline: StopsACPI}
	m, s := NewSeries(kbs.Sample, fw), Shape{CPUs: 1, MemoryMiB: 512}
	initrd := noise(3, 5*pageBytes)
	change := func(at int) []byte {
		b := slices.Clone(initrd)
		b[at] ^= 1
		return b
	}
	for i, b := range [][]byte{initrd, initrd, change(len(initrd) - 1), change(0), initrd, change(2 * pageBytes), initrd[:3*pageBytes], append(slices.Clone(initrd), 1), initrd} {
		got, err := m.Registered(b, s, false)
		want, err2 := Registered(kbs.Sample, fw, b, s, false)
		if err != nil || err2 != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("initrd %d: %+v, expected %+v, %v %v", i, got, want, err, err2)
		}
	}
}
