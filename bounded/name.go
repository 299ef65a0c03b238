package bounded

import "strings"

// Characters for Name.
const (
	Digits  = "0123456789"
	Lower   = "abcdefghijklmnopqrstuvwxyz"
	Letters = Lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// Name says whether s has 1 to limit bytes, the first of them one of first, the
// others of rest. A regular expression would say the same, but is compiled when
// a program starts, which the guest agent does three times in each boot.
func Name(s string, limit int, first, rest string) bool {
	if s == "" || len(s) > limit || strings.IndexByte(first, s[0]) < 0 {
		return false
	}
	for i := 1; i < len(s); i++ {
		if strings.IndexByte(rest, s[i]) < 0 {
			return false
		}
	}
	return true
}
