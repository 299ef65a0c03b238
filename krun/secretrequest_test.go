package krun

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestRequested: of what a host asks for nothing is given that the image's policy
// does not take, in another place or under a name that only looks like it.
func TestRequested(t *testing.T) {
	own := []SecretRule{{Name: "a/b/own", Path: "/etc/x"}}
	for _, x := range []struct {
		allow, asked string
		ok           bool
	}{
		{"a/b/c", "kbs:///a/b/c,target=x", true},
		{"a/b/*", "kbs:///a/b/c.d-e,target=dir/x,mode=0400,uid=7", true},
		{"a/b/*-key", "kbs:///a/b/tls-key,target=x", true},
		{"kbs:///a/*/*", "kbs:///a/x/y,target=x", true},
		{"a/b/c,env=TOKEN", "kbs:///a/b/c,env=TOKEN", true},
		{"a/b/*", "kbs:///a/c/d,target=x", false},
		{"a/b/*", "kbs:///ax/b/c,target=x", false},
		{"a/*", "kbs:///a/b/c,target=x", false},
		{"a/b/c", "kbs:///a/b/cd,target=x", false},
		{"a/b/c", "kbs:///a/b/c,target=/etc/passwd", false},
		{"a/b/c", "kbs:///a/b/c,target=/etc/app/x", false},
		{"a/b/c", "kbs:///a/b/c,env=LD_PRELOAD", false},
		{"a/b/c,env=TOKEN", "kbs:///a/b/c,env=LD_PRELOAD", false},
		{"a/b/c,env=TOKEN", "kbs:///a/b/c,target=x", false},
		{"a/b/c", "a/b/c", false},
		{"a/b/c", "", false},
		{"", "kbs:///a/b/c,target=x", false},
	} {
		all, err := Requested(own, []string{x.allow}, []string{x.asked})
		if (err == nil) != x.ok || x.ok && (len(all) != 2 || all[0] != own[0]) {
			t.Errorf("%s for %s: %+v, %v", x.asked, x.allow, all, err)
		}
	}
	if all, err := Requested(own, []string{"a/b/c"}, nil); err != nil || len(all) != 1 {
		t.Errorf("nothing asked: %+v, %v", all, err)
	}
	if all, err := Requested(own, nil, []string{"kbs:///a/b/c,target=x"}); err == nil {
		t.Errorf("nothing allowed: %+v", all)
	}
	for _, bad := range []string{"", "a/b", "a/b/c/d", "a/b/[cd]", "a/b/?", "a//c", "*", "a/b/c,env=", "a/b/c,env=1", "a/b/c,target=x", `a/b/\c`, "../b/c", "a/b/.*"} {
		if err := CheckSecretAllow([]string{bad}); err == nil {
			t.Errorf("pattern %q is taken", bad)
		}
	}
}

func TestRequestOnDisk(t *testing.T) {
	asked := []string{"kbs:///a/b/c,target=x", "kbs:///a/b/d,env=X"}
	b, err := EncodeRequest(strings.Join(asked, "\n"))
	if err != nil || len(b) != RequestBytes {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if got, err := DecodeRequest(b); err != nil || !slices.Equal(got, asked) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := DecodeRequest(make([]byte, RequestBytes)); err != nil || got != nil {
		t.Errorf("zeros: %q, %v", got, err)
	}
	long := make([]string, maxRequested+1)
	for i := range long {
		long[i] = fmt.Sprintf("kbs:///a/b/c%d,target=x%d", i, i)
	}
	for _, bad := range []string{"", "x", strings.Join(long, "\n"), "kbs:///a/b/c,target=x\n", "kbs:///a/b/c,target=x\n\n"} {
		if _, err := EncodeRequest(bad); err == nil {
			t.Errorf("%.40q is encoded", bad)
		}
	}
	for name, change := range map[string]func(b []byte) []byte{
		"magic":          func(b []byte) []byte { b[0] ^= 1; return b },
		"short":          func(b []byte) []byte { return b[:100] },
		"trailing":       func(b []byte) []byte { b[len(b)-1] = 1; return b },
		"unknown member": func([]byte) []byte { return onDisk(`{"all":true,"secrets":[]}`) },
		"not canonical":  func([]byte) []byte { return onDisk(`{ "secrets":[]}`) },
		"too many":       func([]byte) []byte { return onDisk(`{"secrets":["` + strings.Join(long, `","`) + `"]}`) },
	} {
		if got, err := DecodeRequest(change(slices.Clone(b))); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func onDisk(js string) []byte {
	b := make([]byte, RequestBytes)
	copy(b[copy(b, requestMagic):], js)
	return b
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(requestMagic + `{"secrets":["kbs:///a/b/c,target=x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		room := make([]byte, RequestBytes)
		copy(room, b)
		asked, err := DecodeRequest(room)
		if err == nil && len(asked) > maxRequested {
			t.Errorf("%d", len(asked))
		}
	})
}
