package luks

// Keyslot is what may be said about a keyslot without opening it.
type Keyslot struct {
	Name string
	KDF  KDF
}

// Keyslots lists the header's keyslots in the order Unlock tries them.
func (h *Header) Keyslots() []Keyslot {
	list := make([]Keyslot, 0, len(h.meta.Keyslots))
	for _, name := range h.meta.slotNames() {
		list = append(list, Keyslot{Name: name, KDF: h.meta.Keyslots[name].KDF.kdf()})
	}
	return list
}
