package verifier

import (
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestPredicted: the owner sees which registers nobody has checked, and nothing
// follows from it.
func TestPredicted(t *testing.T) {
	launched := kbs.LaunchDigest{1}
	ref := kbs.ReferenceValues{Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{2}, Predicted: kbs.PredictedRTMRs}, {LaunchDigest: launched}}}
	var r rules
	if r.predicted(launched, ref); len(r) != 0 {
		t.Errorf("another machine's prediction is told: %+v", r)
	}
	ref.Measurements[1].Predicted = kbs.PredictedRTMRs
	if r.predicted(launched, ref); len(r) != 1 || r[0].Rule != "predicted" || !r[0].Pass || r[0].Got != "rtmr1, rtmr2" {
		t.Errorf("told %+v", r)
	}
}
