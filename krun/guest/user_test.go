package guest

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	passwdText = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\napp:x:1000:1001::/home/app:/bin/sh\nnohome:x:1002:1002:::\n1234:x:7:7::/odd:/bin/sh\n"
	groupText  = "root:x:0:root\napp:x:1001:\nextra:x:2000:app,other\nmore:x:2001:other,app\n"
)

func TestParseUser(t *testing.T) {
	for _, c := range []struct {
		spec string
		want credentials
	}{
		{"", credentials{0, 0, []int{0}, "/root"}},
		{"root", credentials{0, 0, []int{0}, "/root"}},
		{"app", credentials{1000, 1001, []int{2000, 2001}, "/home/app"}},
		{"1000", credentials{1000, 1001, []int{2000, 2001}, "/home/app"}},
		{"app:extra", credentials{1000, 2000, []int{}, "/home/app"}},
		{"app:0", credentials{1000, 0, []int{}, "/home/app"}},
		{"app:4242", credentials{1000, 4242, []int{}, "/home/app"}},
		{"4242", credentials{4242, 0, []int{}, "/"}},
		{"4242:4343", credentials{4242, 4343, []int{}, "/"}},
		{"nohome", credentials{1002, 1002, []int{}, "/"}},
		{"1234", credentials{1234, 0, []int{}, "/"}}, // a number is never a name
	} {
		got, err := parseUser(c.spec, strings.NewReader(passwdText), strings.NewReader(groupText))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v; expected %+v", c.spec, got, err, c.want)
		}
	}
	for _, spec := range []string{"ghost", "app:ghost", "-1", "2147483648", "app:-5"} {
		if got, err := parseUser(spec, strings.NewReader(passwdText), strings.NewReader(groupText)); err == nil {
			t.Errorf("%q: accepted as %+v", spec, got)
		}
	}
	if got, err := parseUser("", nil, nil); err != nil || got.uid != 0 || got.home != "/" {
		t.Errorf("without databases: %+v, %v", got, err)
	}
}

func TestLookUpUser(t *testing.T) {
	etc := t.TempDir()
	if got, err := lookUpUser("7:8", etc); err != nil || got.uid != 7 || got.gid != 8 {
		t.Errorf("without files: %+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(etc, "passwd"), []byte(passwdText), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := lookUpUser("app", etc); err != nil || got.uid != 1000 || got.gid != 1001 {
		t.Errorf("%+v, %v", got, err)
	}
	// Neither may hang the boot or exhaust memory.
	if err := unix.Mkfifo(filepath.Join(etc, "group"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := lookUpUser("app", etc); err == nil {
		t.Errorf("a pipe as group file: %+v", got)
	}
	huge := filepath.Join(etc, "group")
	if err := os.Remove(huge); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, maxUserDatabase+1); err != nil {
		t.Fatal(err)
	}
	if got, err := lookUpUser("app", etc); err == nil {
		t.Errorf("a huge group file: %+v", got)
	}
}

func FuzzParseUser(f *testing.F) {
	f.Add("app:extra", passwdText, groupText)
	f.Add("0", "::::::", ":::")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		got, err := parseUser(spec, io.LimitReader(strings.NewReader(passwd), 1<<16), strings.NewReader(group))
		if err != nil {
			return
		}
		if got.uid < 0 || got.gid < 0 || got.home == "" {
			t.Fatalf("%q: %+v", spec, got)
		}
	})
}
