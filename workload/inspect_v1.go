package workload

import (
	"maps"
	"slices"
	"strconv"

	"github.com/ccrun/ccrun/luks"
)

// footerTailBytes follow the JSON: KRUN and its length.
const footerTailBytes = 12

// headerV1 describes the disk of a classic image, ours or buildah's.
func (in *Inspection) headerV1(h *luks.V1Header) error {
	in.Disk.Format, in.v1 = "LUKS1", h
	in.endV1(0)
	kdfs := h.KDFs()
	for _, i := range slices.Sorted(maps.Keys(kdfs)) {
		in.Disk.Keyslots = append(in.Disk.Keyslots, KeyslotInspection{Name: strconv.Itoa(i), KDF: kdfs[i].Type, Iterations: kdfs[i].Iterations})
	}
	return nil
}

// endV1 takes the content of a LUKS1 disk to end where a footer of so many
// bytes of JSON begins: the header does not say where.
func (in *Inspection) endV1(jsonBytes int) {
	if in.v1 == nil {
		return
	}
	end := in.Disk.SizeBytes
	if jsonBytes > 0 {
		end -= int64(jsonBytes + footerTailBytes)
	}
	g, err := in.v1.Geometry(end)
	if err != nil {
		in.problem("LUKS1 header: %v", err)
		return
	}
	in.Disk.Geometry = &g
}
