package attestserver

import (
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// checkLimits refuses limits that limit nothing or allow nothing.
func checkLimits(l *kbs.ReleaseLimits, now time.Time) error {
	switch {
	case l == nil:
		return nil
	case l.Total < 0 || l.PerDay < 0:
		return fmt.Errorf("release limits of %d in all and %d per day, expected at least 1 or none", l.Total, l.PerDay)
	case l.Total == 0 && l.PerDay == 0 && l.NotAfter == nil && len(l.Approvals) == 0:
		return errors.New("release limits that limit nothing: leave them out")
	case l.NotAfter != nil && !now.Before(*l.NotAfter):
		return fmt.Errorf("release until %s, which is over: the workload could never start", l.NotAfter.UTC().Format(time.RFC3339))
	}
	return checkApprovers(l.Approvals)
}
