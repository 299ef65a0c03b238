package face

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// nearFlag is the flag of c's command that name may have been meant to be, with
// its dashes; or "".
func nearFlag(c *cli.Context, name string) string {
	flags := c.App.Flags
	if c.Command != nil {
		flags = slices.Concat(flags, c.Command.Flags)
	}
	var names []string
	for _, f := range flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				names = append(names, n)
			}
		}
	}
	if near := Nearest(name, names); near != "" {
		return "--" + near
	}
	return ""
}

// kin are words that mean the same to people who come from other tools.
func kin(word string) []string {
	for _, same := range [][]string{
		{"ls", "list"}, {"rm", "remove", "delete", "del"}, {"show", "inspect", "get", "describe", "info"}, {"create", "add", "new", "make"},
		{"update", "upgrade"}, {"certs", "cert", "certificates"}, {"session", "sessions"}, {"workload", "workloads"}, {"resource", "resources", "secret", "secrets"},
		{"context", "contexts"}, {"volume", "volumes"}, {"token", "tokens"}, {"tenant", "tenants"}, {"doctor", "check"},
	} {
		for _, w := range same {
			if w == word {
				return same
			}
		}
	}
	return nil
}

// Nearest is the one of names that word may have been meant to be: a word for the
// same thing, a name that it begins, or the one with the fewest slips; or "".
func Nearest(word string, names []string) string {
	word = strings.ToLower(word)
	for _, same := range kin(word) {
		for _, n := range names {
			if n == same {
				return n
			}
		}
	}
	best, least := "", 1+len(word)/3
	for _, n := range names {
		if len(word) > 2 && strings.HasPrefix(n, word) {
			return n
		}
		if d := slips(word, n); d <= least && (d < least || best == "") {
			best, least = n, d
		}
	}
	return best
}

// slips is how many letters were typed wrong, left out, typed in addition, or
// swapped with the next one.
func slips(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
