package measure

import (
	"reflect"
	"runtime"
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

// TestSeriesBound: of a fleet's initrds, all but the end that differs is neither
// copied to new memory nor hashed: thousands are measured in a minute.
func TestSeriesBound(t *testing.T) {
	const fleet, agentPages, tail = 50, 750, 2
	fw := &firmware.Bundle{Kind: firmware.KindQEMUDirect, Kernel: noise(2, 5000), InitrdBase: noise(4, 8<<20), Cmdline: StopsACPI}
	m, s := NewSeries(kbs.Sample, fw), Shape{CPUs: 1, MemoryMiB: 512}
	initrd := noise(3, (agentPages+tail)*pageBytes)
	measureOne := func(i int) {
		initrd[len(initrd)-1] = byte(i)
		if _, err := m.Registered(initrd, s, false); err != nil {
			t.Fatal(err)
		}
	}
	measureOne(0)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range fleet {
		measureOne(1 + i)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / fleet; each > 128<<10 {
		t.Errorf("%d bytes allocated for each of the same beginning", each)
	}
	if n := len(m.before.initrd.after); n != len(fw.InitrdBase)/pageBytes+agentPages+tail {
		t.Errorf("%d pages remembered", n)
	}
}
