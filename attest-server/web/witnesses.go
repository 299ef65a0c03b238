package web

// Witness is one who remembers the head of the audit log, elsewhere.
type Witness struct {
	Name            string
	Optional, Signs bool
	Asked           bool
	Entries         int64  // of the log that it agreed to last; 0: none since the start
	Problem         string // what it said last against the log, or why it said nothing; empty: it agrees
}

// Witnesses are all of them, and what follows.
type Witnesses struct {
	All     []Witness
	Refusal string // why nothing is released; empty: the log is what they have seen
}

// Agree counts the witnesses that agree.
func (w Witnesses) Agree() (n int) {
	for _, x := range w.All {
		if x.Asked && x.Problem == "" {
			n++
		}
	}
	return n
}
