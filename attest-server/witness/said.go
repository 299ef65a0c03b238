package witness

// Said is what a witness has said since the start.
type Said struct {
	Name            string
	Optional, Signs bool
	Size            int64 // entries of the log that it agreed to last; 0: none yet
	Asked           bool
	Err             error // against the log, or why it said nothing; nil: it agrees
}

// Said is what each witness has said last, in the order of the configuration.
func (a *Anchor) Said() []Said {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]Said, 0, len(a.witnesses))
	for _, w := range a.witnesses {
		s := a.said[w.Name]
		s.Name, s.Optional, s.Signs = w.Name, w.Optional, w.Key != nil
		all = append(all, s)
	}
	return all
}

// noteSaid keeps what a witness said of a log of that size.
func (a *Anchor) noteSaid(name string, size int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.said[name]
	s.Asked, s.Err = true, err
	if err == nil {
		s.Size = size
	}
	a.said[name] = s
}
