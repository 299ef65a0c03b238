package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// stream is n bytes of SHA-256(name || counter), the content of which the
// recorded launches were made.
func stream(name string, n int) []byte {
	var b []byte
	for i := uint64(0); len(b) < n; i++ {
		sum := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(name), i))
		b = append(b, sum[:]...)
	}
	return b[:n]
}

// TestWhatLibkrunMeasured: testdata/libkrun-launch.json is what the real
// libkrun-sev 1.18.1, 1.19.0 and its HEAD of 2026-06-12 handed to
// SNP_LAUNCH_UPDATE, recorded from the ioctls, for eight shapes. Profile
// libkrun-1.16 must give exactly those regions, in that order.
func TestWhatLibkrunMeasured(t *testing.T) {
	b, err := os.ReadFile("testdata/libkrun-launch.json")
	if err != nil {
		t.Fatal(err)
	}
	var launches []struct {
		CPUs      uint `json:"cpus"`
		MemoryMiB uint `json:"memory_mib"`
		Regions   []struct {
			GPA       uint64      `json:"gpa"`
			SizeBytes uint64      `json:"size_bytes"`
			PageType  pageType    `json:"page_type"`
			SHA384    *kbs.Digest `json:"sha384"`
		} `json:"regions"`
		Digest  kbs.LaunchDigest `json:"digest"`
		Libkrun []string         `json:"libkrun"`
	}
	if err := json.Unmarshal(b, &launches); err != nil || len(launches) != 8 {
		t.Fatalf("%d launches, %v", len(launches), err)
	}
	in := Inputs{
		QBoot: stream("qboot", 64<<10), Kernel: stream("kernel", 1<<20), KernelLoad: 0x1000000,
		Initrd: append(stream("initrd", 12<<10), make([]byte, 52<<10)...),
	}
	for _, want := range launches {
		if len(want.Libkrun) != 3 {
			t.Errorf("recorded with %v, expected three versions", want.Libkrun)
		}
		got, err := Launch(Libkrun116, in, Shape{CPUs: want.CPUs, MemoryMiB: want.MemoryMiB})
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest != want.Digest {
			t.Errorf("%d vCPUs, %d MiB: digest %s, libkrun's is %s", want.CPUs, want.MemoryMiB, got.Digest, want.Digest)
		}
		// Behind libkrun's regions come the VMSAs, which KVM adds.
		if len(got.Regions) != len(want.Regions)+int(want.CPUs) {
			t.Errorf("%d vCPUs, %d MiB: %d regions, libkrun's are %d and a VMSA for each vCPU", want.CPUs, want.MemoryMiB, len(got.Regions), len(want.Regions))
			continue
		}
		for i, w := range want.Regions {
			g := got.Regions[i]
			if g.GPA != w.GPA || g.SizeBytes != w.SizeBytes || g.Type != w.PageType.String() || w.SHA384 != nil && (g.SHA384 == nil || *g.SHA384 != *w.SHA384) {
				t.Errorf("%d vCPUs, %d MiB: region %d is %+v, libkrun's is %+v", want.CPUs, want.MemoryMiB, i, g, w)
			}
		}
	}
}
