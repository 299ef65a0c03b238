package process

import (
	"io"
	"reflect"
	"strings"
	"testing"
)

const (
	passwdText = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\napp:x:1000:1001::/home/app:/bin/sh\nnohome:x:1002:1002:::\n1234:x:7:7::/odd:/bin/sh\n"
	groupText  = "root:x:0:root\napp:x:1001:\nextra:x:2000:app,other\nmore:x:2001:other,app\n"
)

func TestLookUp(t *testing.T) {
	for _, c := range []struct {
		spec string
		want Credentials
	}{
		{"", Credentials{0, 0, []int{0}, "/root"}},
		{"root", Credentials{0, 0, []int{0}, "/root"}},
		{"app", Credentials{1000, 1001, []int{1001, 2000, 2001}, "/home/app"}},
		{"1000", Credentials{1000, 1001, []int{1001, 2000, 2001}, "/home/app"}},
		{"app:extra", Credentials{1000, 2000, []int{2000}, "/home/app"}},
		{"app:0", Credentials{1000, 0, []int{0}, "/home/app"}},
		{"app:4242", Credentials{1000, 4242, []int{4242}, "/home/app"}},
		{"4242", Credentials{4242, 0, []int{0}, "/"}},
		{"4242:4343", Credentials{4242, 4343, []int{4343}, "/"}},
		{"nohome", Credentials{1002, 1002, []int{1002}, "/"}},
		{"1234", Credentials{1234, 0, []int{0}, "/"}}, // a number is never a name
	} {
		got, err := LookUp(c.spec, strings.NewReader(passwdText), strings.NewReader(groupText))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v; expected %+v", c.spec, got, err, c.want)
		}
	}
	for _, spec := range []string{"ghost", "app:ghost", "-1", "2147483648", "app:-5"} {
		if got, err := LookUp(spec, strings.NewReader(passwdText), strings.NewReader(groupText)); err == nil {
			t.Errorf("%q: accepted as %+v", spec, got)
		}
	}
	if got, err := LookUp("", nil, nil); err != nil || got.UID != 0 || got.Home != "/" {
		t.Errorf("without databases: %+v, %v", got, err)
	}
}

func FuzzLookUp(f *testing.F) {
	f.Add("app:extra", passwdText, groupText)
	f.Add("0", "::::::", ":::")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		got, err := LookUp(spec, io.LimitReader(strings.NewReader(passwd), 1<<16), strings.NewReader(group))
		if err != nil {
			return
		}
		if got.UID < 0 || got.GID < 0 || got.Home == "" {
			t.Fatalf("%q: %+v", spec, got)
		}
	})
}
