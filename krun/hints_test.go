package krun

import (
	"bytes"
	"strings"
	"testing"
)

func TestHints(t *testing.T) {
	many := make([]string, MaxHintedPorts+1)
	for i := range many {
		many[i] = "65535/sctp"
	}
	for _, ports := range [][]string{nil, {"80/tcp", "53/udp"}, many} {
		b, err := Hints{Firmware: strings.Repeat("0a", 32), Ports: ports}.Encode()
		if err != nil || len(b) > MaxHintsBytes {
			t.Fatalf("%d bytes (%v)", len(b), err)
		}
		h, err := DecodeHints(b)
		if err != nil || len(h.Ports) != min(len(ports), MaxHintedPorts) {
			t.Fatalf("%+v (%v)", h, err)
		}
		if again, err := h.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s became %s (%v)", b, again, err)
		}
	}
	if _, err := (Hints{Firmware: "x"}).Encode(); err == nil {
		t.Error("encoded without a digest")
	}
}

func TestHintsRefused(t *testing.T) {
	digest := strings.Repeat("0a", 32)
	good := `{"firmware":"` + digest + `","ports":["80/tcp"],"version":1}`
	if _, err := DecodeHints([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "null": "null", "space": good + " ", "order": `{"version":1,"firmware":"` + digest + `","ports":[]}`,
		"more": strings.Replace(good, `,"version"`, `,"secret":1,"version"`, 1), "version": strings.Replace(good, ":1}", ":2}", 1),
		"digest": strings.Replace(good, digest, "0a", 1), "port": strings.Replace(good, "80/tcp", strings.Repeat("8", 40), 1),
		"no ports": strings.Replace(good, `"ports":["80/tcp"],`, "", 1), "null ports": strings.Replace(good, `["80/tcp"]`, "null", 1),
		"case":    strings.Replace(good, "firmware", "firmwAre", 1),
		"no port": strings.Replace(good, "80/tcp", "", 1), "twice": strings.Replace(good, `"version"`, `"ports":[],"version"`, 1),
		"large": `{"firmware":"` + digest + `","ports":["` + strings.Repeat("8", MaxHintsBytes) + `"],"version":1}`,
	} {
		if h, err := DecodeHints([]byte(text)); err == nil {
			t.Errorf("%s: read as %+v", name, h)
		}
	}
}

func FuzzDecodeHints(f *testing.F) {
	f.Add([]byte(`{"firmware":"` + strings.Repeat("0a", 32) + `","ports":["80/tcp"],"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHints(b)
		if err != nil {
			return
		}
		if again, err := h.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q became %q (%v)", b, again, err)
		}
	})
}
