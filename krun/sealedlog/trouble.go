package sealedlog

import (
	"fmt"
	"time"
)

// A Fault is what a host may have done to a log.
type Fault string

// Faults.
const (
	Missing    Fault = "missing"      // frames that never came
	Altered    Fault = "altered"      // a frame that no guest wrote
	Repeated   Fault = "repeated"     // a genuine frame in a place that is not its own
	ForgedKey  Fault = "forged-key"   // a line with a key that no guest of the image wrote
	Keyless    Fault = "keyless"      // frames of a boot whose key never came
	Broken     Fault = "broken"       // what began as a line and is none
	MissingEnd Fault = "missing-end"  // a boot without its end, though another followed
	OutOfChain Fault = "out-of-chain" // a frame that does not know the one before it
)

// A Trouble is one place where the log is not what the guest wrote.
type Trouble struct {
	Fault Fault  `json:"fault"`
	Boot  string `json:"boot,omitempty"`
	// First and Last are sequence numbers of frames, of Missing, Altered,
	// Repeated and OutOfChain; of Keyless they are zero and N counts.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	N     int    `json:"n,omitempty"`
	// Before is the time of the first record that comes after what is missing; zero
	// if none came.
	Before time.Time `json:"before,omitzero"`
}

// String is what the reader of the log is told.
func (t Trouble) String() string {
	frames := fmt.Sprintf("frame %d of boot %s", t.First, t.Boot)
	if t.Last > t.First {
		frames = fmt.Sprintf("frames %d to %d of boot %s", t.First, t.Last, t.Boot)
	}
	switch t.Fault {
	case Missing:
		return frames + " missing"
	case Altered:
		return frames + " altered or forged"
	case Repeated:
		return frames + " once more, or out of its order: not shown"
	case ForgedKey:
		return "a key of boot " + t.Boot + " that no guest of this image wrote: not used"
	case Keyless:
		return fmt.Sprintf("%d frames of boot %s, whose key is missing: cannot be read", t.N, t.Boot)
	case Broken:
		return "a line that is broken off, or was written into: not shown"
	case MissingEnd:
		return "the end of boot " + t.Boot + " missing, behind frame " + fmt.Sprint(t.Last)
	case OutOfChain:
		return frames + " does not follow the one before it"
	}
	return string(t.Fault)
}
