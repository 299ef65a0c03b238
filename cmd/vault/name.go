package vault

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/ccrun/ccrun/hint"
)

// Name says where a secret is.
type Name struct{ Mount, Path, Field string }

const maxName = 1024

// ParseName reads MOUNT/PATH#FIELD. A mount of several parts ends with two
// slashes.
func ParseName(s string) (n Name, err error) {
	bad := hint.With(hint.Usagef("vault:%.80q, expected vault:MOUNT/PATH#FIELD", s), "such as vault:secret/shop/db#password; a mount of several parts ends with //")
	at := strings.LastIndexByte(s, '#')
	if at < 0 || len(s) > maxName {
		return n, bad
	}
	n.Field = s[at+1:]
	var ok bool
	if n.Mount, n.Path, ok = strings.Cut(s[:at], "//"); !ok {
		n.Mount, n.Path, ok = strings.Cut(s[:at], "/")
	}
	if !ok || n.Field == "" || strings.ContainsFunc(n.Field, control) || !segments(n.Mount) || !segments(n.Path) {
		return Name{}, bad
	}
	return n, nil
}

// segments says whether s names something below where it begins.
func segments(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, control) {
			return false
		}
	}
	return true
}

func control(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }

func (n Name) String() string { return "vault:" + n.Mount + "//" + n.Path + "#" + n.Field }

// path is the API's route.
func (n Name) path() string { return "/v1/" + escaped(n.Mount) + "/data/" + escaped(n.Path) }

func escaped(s string) string {
	parts := strings.Split(s, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
