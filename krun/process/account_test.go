package process

import (
	"strings"
	"testing"
)

// What Podman 4.3.1 wrote for these, but for uid 0, which is Podman 5.6's.
func TestMissingAccounts(t *testing.T) {
	for _, c := range []struct{ spec, home, passwd, group string }{
		{"", "/", "", ""},
		{"root", "/", "", ""},
		{"app", "/", "", ""},
		{"1000", "/", "", ""},
		{"10001", "/app", "10001:*:10001:0:container user:/app:/bin/sh\n", ""},
		{"10001", "", "10001:*:10001:0:container user:/:/bin/sh\n", ""},
		{"10001:10002", "/", "10001:*:10001:10002:container user:/:/bin/sh\n", "10002:x:10002:10001\n"},
		{"10001:extra", "/", "10001:*:10001:2000:container user:/:/bin/sh\n", ""},
		{"app:2222", "/", "", "2222:x:2222:app\n"},
		{"app:2000", "/", "", ""},
		{"0", "/", "", ""},
	} {
		a, err := MissingAccounts(c.spec, c.home, []byte(passwdText), []byte(groupText))
		if err != nil || a != (Accounts{c.passwd, c.group}) {
			t.Errorf("%q: %+v, %v", c.spec, a, err)
		}
	}
	// An image FROM scratch.
	a, err := MissingAccounts("10001", "/", nil, nil)
	if err != nil || a != (Accounts{"10001:*:10001:0:container user:/:/bin/sh\n", "0:x:0:10001\n"}) {
		t.Errorf("without files: %+v, %v", a, err)
	}
	if a, err = MissingAccounts("0:0", "/", nil, nil); err != nil || a != (Accounts{"root:*:0:0:root:/:/bin/sh\n", "0:x:0:0\n"}) {
		t.Errorf("root without files: %+v, %v", a, err)
	}
	if a, err := MissingAccounts("10001:ghost", "/", []byte(passwdText), []byte(groupText)); err == nil {
		t.Errorf("a group that nobody knows: %+v", a)
	}
}

// A home that is more than a path must not become a second line.
func TestMissingAccountsOneLine(t *testing.T) {
	for _, home := range []string{"/a\nroot::0:0::/:", "/a:b"} {
		if a, err := MissingAccounts("10001", home, nil, nil); err == nil {
			t.Errorf("%q: accepted as %q", home, a.Passwd)
		}
	}
}

func TestAppend(t *testing.T) {
	for in, want := range map[string]string{"": "l\n", "a\n": "a\nl\n", "a": "a\nl\n"} {
		if got := string(Append([]byte(in), "l\n")); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// The lines make the user known.
func FuzzMissingAccounts(f *testing.F) {
	f.Add("10001:10002", "/app", passwdText, groupText)
	f.Fuzz(func(t *testing.T, spec, home, passwd, group string) {
		a, err := MissingAccounts(spec, home, []byte(passwd), []byte(group))
		if err != nil || strings.Count(a.Passwd, "\n") > 1 {
			return
		}
		again, err := MissingAccounts(spec, home, Append([]byte(passwd), a.Passwd), Append([]byte(group), a.Group))
		if err == nil && again != (Accounts{}) {
			t.Fatalf("%q twice: %+v, then %+v", spec, a, again)
		}
	})
}
