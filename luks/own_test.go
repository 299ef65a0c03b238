package luks

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

func openOwn(disk []byte) (*Header, error) {
	return ReadOwnHeader(bytes.NewReader(disk), int64(len(disk)))
}

// TestOwnHeaderIsExact: each of these is a valid LUKS2 header, by which the
// holder of a disk could choose what a guest computes with its keys, how long
// and in how much memory.
func TestOwnHeaderIsExact(t *testing.T) {
	_, vk, disk := smallDisk(t, true)
	argon := func(time, memory, cpus int) func(object) {
		return func(o object) {
			k := at(o, "keyslots", "0")
			k["kdf"] = object{"type": "argon2id", "salt": at(k, "kdf")["salt"], "time": time, "memory": memory, "cpus": cpus}
		}
	}
	moreSlots := func(n int) func(object) {
		return func(o object) {
			slots := at(o, "keyslots")
			for i := 1; i < n; i++ {
				k := object{}
				for name, v := range at(slots, "0") {
					k[name] = v
				}
				k["area"] = object{"type": "raw", "encryption": cipherAESXTS, "key_size": 64, "size": "385024", "offset": decimalAt(32<<10 + i*385024)}
				slots[string(rune('0'+i))] = k
			}
		}
	}
	for name, change := range map[string]func(object){
		"1 GiB of argon2":      argon(1, 1<<20, 1),
		"other argon2":         argon(4, 64<<10, 2),
		"more passes":          argon(5, 64<<10, 1),
		"argon2i":              func(o object) { argon(4, 64<<10, 1)(o); at(o, "keyslots", "0", "kdf")["type"] = "argon2i" },
		"iterations":           func(o object) { at(o, "keyslots", "0", "kdf")["iterations"] = 1001 },
		"hash of KDF":          func(o object) { at(o, "keyslots", "0", "kdf")["hash"] = "sha512" },
		"hash of splitter":     func(o object) { at(o, "keyslots", "0", "af")["hash"] = "sha512" },
		"iterations of digest": func(o object) { at(o, "digests", "0")["iterations"] = 1 << 24 },
		"half the area's key":  func(o object) { at(o, "keyslots", "0", "area")["key_size"] = 32 },
		"two keyslots":         moreSlots(2),
		"digest of no keyslot": func(o object) { at(o, "digests", "0")["keyslots"] = []any{} },
		"another name": func(o object) {
			s := at(o, "keyslots")
			s["7"] = s["0"]
			delete(s, "0")
			at(o, "digests", "0")["keyslots"] = []any{"7"}
		},
		"a place of its own": func(o object) { at(o, "keyslots", "0", "area")["offset"] = decimalAt(36 << 10) },
		"priority":           func(o object) { at(o, "keyslots", "0")["priority"] = 1 },
		"token":              func(o object) { at(o, "tokens")["0"] = object{"type": "x", "keyslots": []any{}} },
		"flags":              func(o object) { at(o, "config")["flags"] = []any{"allow-discards"} },
		"sha512 in digest": func(o object) {
			d := at(o, "digests", "0")
			d["hash"], d["digest"] = "sha512", base64.StdEncoding.EncodeToString(make([]byte, 64))
		},
	} {
		b := edited(t, disk, change)
		if _, err := open(b); err != nil {
			t.Errorf("%s: not even a header: %v", name, err)
		}
		if _, err := openOwn(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	h, err := openOwn(disk)
	if err != nil {
		t.Fatal(err)
	}
	front, err := h.ReplaceKeyslots(vk, testPassphrase(), PassphraseKDF(), seeded(5))
	if err != nil {
		t.Fatal(err)
	}
	copy(disk, front)
	if h, err = openOwn(disk); err != nil || h.UnlockBytes() < 64<<20 {
		t.Errorf("an own header with a stretched passphrase: %v", err)
	}
}

func decimalAt(n int) string {
	b, _ := decimal(n).MarshalJSON()
	return strings.Trim(string(b), `"`)
}

// countingReader notes how much was read.
type countingReader struct {
	r io.ReaderAt
	n int64
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	c.n += int64(len(p))
	return c.r.ReadAt(p, off)
}

// TestOwnHeaderReadsNoMore: what is refused costs no memory for keyslots.
func TestOwnHeaderReadsNoMore(t *testing.T) {
	_, _, disk := smallDisk(t, true)
	b := edited(t, disk, func(o object) { at(o, "keyslots", "0", "kdf")["hash"] = "sha512" })
	r := &countingReader{r: bytes.NewReader(b)}
	if _, err := ReadOwnHeader(r, int64(len(b))); err == nil || r.n > 256<<10 {
		t.Errorf("%d bytes read, %v", r.n, err)
	}
}

// TestUnlockObeysItsContext: no key derivation begins after the boot's time.
func TestUnlockObeysItsContext(t *testing.T) {
	_, _, disk := smallDisk(t, true)
	h, err := open(edited(t, disk, func(o object) {
		k := at(o, "keyslots", "0")
		k["kdf"] = object{"type": "argon2id", "salt": at(k, "kdf")["salt"], "time": 64, "memory": 1 << 20, "cpus": 1}
	}))
	if err != nil {
		t.Fatal(err)
	}
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if _, err := h.UnlockContext(ctx, secret.New([]byte("p"))); !errors.Is(err, over) {
		t.Errorf("%v", err)
	}
}
