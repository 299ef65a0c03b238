package advisory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Any is the ID by which every advisory is allowed, and silicon that no table
// knows.
const Any = "all"

// Leave is that firmware with an open advisory is accepted all the same.
type Leave struct {
	ID    string    // Any for all
	Until time.Time // the first moment when it is not; zero: it always is
}

// ParseLeave reads ID, or ID=DATE for until the end of that day (UTC).
func ParseLeave(s string) (Leave, error) {
	id, date, dated := strings.Cut(s, "=")
	l := Leave{ID: id}
	if id != Any && !validID.MatchString(id) {
		return Leave{}, fmt.Errorf("advisory %q, expected a number such as AMD-SB-3030, or %s, perhaps with =YYYY-MM-DD", s, Any)
	}
	if !dated {
		return l, nil
	}
	day, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return Leave{}, fmt.Errorf("advisory %q: date %q, expected YYYY-MM-DD", id, date)
	}
	l.Until = day.AddDate(0, 0, 1)
	return l, nil
}

// String is what ParseLeave reads.
func (l Leave) String() string {
	if l.Until.IsZero() {
		return l.ID
	}
	return l.ID + "=" + l.Until.AddDate(0, 0, -1).Format(time.DateOnly)
}

// Covers says whether l is leave for that advisory; id Any is silicon that no
// table knows. What cannot be read is no leave.
func (l Leave) Covers(id string, at time.Time) bool {
	return (l.ID == Any || l.ID == id) && l.ID != "" && !at.IsZero() && (l.Until.IsZero() || at.Before(l.Until))
}

// LeaveFor is the entry of list by which that advisory is allowed.
func LeaveFor(list []string, id string, at time.Time) (string, bool) {
	for _, s := range list {
		if l, err := ParseLeave(s); err == nil && l.Covers(id, at) {
			return s, true
		}
	}
	return "", false
}

// CheckLeave refuses a list with what ParseLeave does not read, or with one
// advisory twice.
func CheckLeave(list []string) error {
	seen := map[string]bool{}
	for _, s := range list {
		l, err := ParseLeave(s)
		if err != nil {
			return err
		}
		if seen[l.ID] {
			return fmt.Errorf("advisory %q twice", l.ID)
		}
		seen[l.ID] = true
	}
	return nil
}

// Common is what two lists both allow, until the earlier date of the two.
func Common(a, b []string) []string {
	x, y := byID(a), byID(b)
	ids := slices.Collect(maps.Keys(x))
	for id := range y {
		if _, ok := x[id]; !ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var both []string
	for _, id := range ids {
		l, ok := latest(x, id)
		o, ok2 := latest(y, id)
		if !ok || !ok2 {
			continue
		}
		if l.Until.IsZero() || !o.Until.IsZero() && o.Until.Before(l.Until) {
			l.Until = o.Until
		}
		both = append(both, l.String())
	}
	return both
}

// byID leaves out what cannot be read.
func byID(list []string) map[string]Leave {
	m := map[string]Leave{}
	for _, s := range list {
		if l, err := ParseLeave(s); err == nil {
			m[l.ID] = later(m[l.ID], l)
		}
	}
	return m
}

// later is the one of two that ends later; the zero value is none.
func later(a, b Leave) Leave {
	if a.ID == "" || b.Until.IsZero() || !a.Until.IsZero() && b.Until.After(a.Until) {
		return b
	}
	return a
}

// latest is what is left for id, by its own name or by Any.
func latest(m map[string]Leave, id string) (Leave, bool) {
	own, ok := m[id]
	if every, any := m[Any]; any {
		own, ok = later(own, every), true
	}
	own.ID = id
	return own, ok
}
