package luks

import (
	"strings"
	"testing"
)

func TestTables(t *testing.T) {
	g, plain := mustGeometry(t, 1<<20, true), mustGeometry(t, 1<<20, false)
	old := plain
	old.SectorBytes = 512
	vk := &VolumeKey{b: make([]byte, 96)}
	vk.b[0], vk.b[95] = 0xab, 0xcd
	for _, c := range []struct {
		name    string
		got     target
		kind    string
		sectors int64
		params  string
	}{
		{"segment", linearTable(&g, "254:0", 0), "linear", 800 + 64 + 2048, "254:0 2048"},
		{"segment further on", linearTable(&g, "254:0", 1<<20), "linear", 800 + 64 + 2048, "254:0 4096"},
		{"segment without integrity", linearTable(&plain, "254:0", 0), "linear", 2048, "254:0 2048"},
		{"writable", integrityTable(&g, "253:0", false), "integrity", 2048, "253:0 0 32 J 1 block_size:4096"},
		{"read-only", integrityTable(&g, "253:0", true), "integrity", 2048, "253:0 0 32 R 1 block_size:4096"},
		{"authenticated", cryptTable(&g, "253:1", keyringKey(vk, "ccrun:root")), "crypt", 2048,
			"capi:authenc(hmac(sha256),xts(aes))-plain64 :96:logon:ccrun:root 0 253:1 0 2 integrity:32:aead sector_size:4096"},
		{"plain", cryptTable(&plain, "253:1", []byte("K")), "crypt", 2048, "aes-xts-plain64 K 0 253:1 0 1 sector_size:4096"},
		{"512", cryptTable(&old, "253:1", []byte("K")), "crypt", 2048, "aes-xts-plain64 K 0 253:1 0"},
	} {
		if c.got.kind != c.kind || c.got.sectors != c.sectors || string(c.got.params) != c.params {
			t.Errorf("%s: %s %d %q, expected %s %d %q", c.name, c.got.kind, c.got.sectors, c.got.params, c.kind, c.sectors, c.params)
		}
	}
	if k := string(hexKey(vk)); len(k) != 192 || !strings.HasPrefix(k, "ab00") || !strings.HasSuffix(k, "00cd") {
		t.Errorf("key field %s", k)
	}
}
