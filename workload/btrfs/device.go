package btrfs

// chunkItems lists the device and where on it the chunks are.
func (l *Layout) chunkItems(put putFunc) error {
	if err := put(key{devID, devItem, devID}, l.device(l.buf[:0])); err != nil {
		return err
	}
	for _, c := range l.space.chunks {
		if err := put(key{firstChunk, chunkItem, c.start}, l.chunk(l.buf[:0], c)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layout) device(r record) record {
	var used uint64
	for _, c := range l.space.chunks {
		used += c.length
	}
	r = r.u64(devID, uint64(l.SizeBytes()), used).u32(sectorSize).u32(sectorSize).u32(sectorSize)
	return r.u64(0, 0, 0).u32(0).u8(0).u8(0).uuid(l.ids.device).uuid(l.opts.UUID)
}

func (l *Layout) chunk(r record, c chunk) record {
	r = r.u64(c.length, extentTree, stripeSize, c.kind).u32(stripeSize).u32(stripeSize).u32(sectorSize)
	return r.u16(1).u16(1).u64(devID, c.start).uuid(l.ids.device)
}

// deviceItems lists the same, from the device's side.
func (l *Layout) deviceItems(put putFunc) error {
	for _, c := range l.space.chunks {
		r := record(l.buf[:0]).u64(chunkTree, firstChunk, c.start, c.length).uuid(l.ids.chunkTree)
		if err := put(key{devID, devExtent, c.start}, r); err != nil {
			return err
		}
	}
	return nil
}
