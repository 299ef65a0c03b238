package witness

import "sync"

// Said is what a witness has said since the start.
type Said struct {
	Name            string
	Optional, Signs bool
	Size            int64 // entries of the log that it agreed to last; 0: none yet
	Asked           bool
	Err             error // against the log, or why it said nothing; nil: it agrees
}

// sayings are what each witness has said last, by name.
type sayings struct {
	mu  sync.Mutex
	all map[string]Said
}

// note keeps what a witness said of a log of that size.
func (s *sayings) note(name string, size int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.all[name]
	x.Name, x.Asked, x.Err = name, true, err
	if err == nil {
		x.Size = size
	}
	if s.all == nil {
		s.all = map[string]Said{}
	}
	s.all[name] = x
}

func (s *sayings) of(name string) Said {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[name]
}
