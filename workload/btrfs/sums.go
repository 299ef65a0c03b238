package btrfs

// sumBytes is the size of a sector's checksum.
const sumBytes = 4

// maxSums is how many checksums the kernel puts into one item: it leaves room
// in the leaf to split the item, which it does when data in its midst goes.
const maxSums = (leafSpace-2*itemBytes)/sumBytes - 1

// summer collects the checksums of data that lies together.
type summer struct {
	packer packer
	start  uint64
	sums   []byte
}

// add takes the checksums of sectors from at on.
func (s *summer) add(at uint64, sums []byte) error {
	for len(sums) > 0 {
		have := len(s.sums) / sumBytes
		if have == maxSums || s.start+uint64(have)*sectorSize != at {
			if err := s.put(); err != nil {
				return err
			}
			s.start, have = at, 0
		}
		n := min(len(sums), (maxSums-have)*sumBytes)
		s.sums = append(s.sums, sums[:n]...)
		sums = sums[n:]
		at += uint64(n) / sumBytes * sectorSize
	}
	return nil
}

func (s *summer) put() error {
	if len(s.sums) == 0 {
		return nil
	}
	err := s.packer.add(key{csumObject, extentCsum, s.start}, s.sums)
	s.sums = s.sums[:0]
	return err
}

func (s *summer) close() error {
	if err := s.put(); err != nil {
		return err
	}
	return s.packer.close()
}
