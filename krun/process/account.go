package process

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
)

// Accounts are the lines that Podman adds to /etc/passwd and /etc/group for a
// user or group given by number that the image does not know: without them
// getpwuid(3) fails, and with it PostgreSQL's initdb, Python's getpass, ssh.
type Accounts struct {
	Passwd, Group string // empty: nothing to add
}

// MissingAccounts says which lines spec, an OCI User, asks for. home is the
// working directory, as Podman takes it.
func MissingAccounts(spec, home string, passwd, group []byte) (Accounts, error) {
	if spec == "" {
		return Accounts{}, nil
	}
	var a Accounts
	name, groupName, _ := strings.Cut(spec, ":")
	if home == "" {
		home = "/"
	}
	if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
		known, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return uint64(u.Uid) == uid })
		if err != nil {
			return a, fmt.Errorf("reading /etc/passwd: %w", err)
		}
		if len(known) == 0 {
			who, err := LookUp(spec, bytes.NewReader(passwd), bytes.NewReader(group))
			if err != nil {
				return a, err
			}
			if strings.ContainsAny(home, ":\n") {
				return a, fmt.Errorf("working directory %.40q would be the home of user %d, and has a colon or a line end", home, uid)
			}
			a.Passwd = passwdLine(uid, who.GID, home)
		}
	}
	if groupName == "" {
		groupName = "0"
	}
	gid, err := strconv.ParseUint(groupName, 10, 32)
	if err != nil {
		return a, nil // by name: it is there, or LookUp refuses it
	}
	known, err := user.ParseGroupFilter(bytes.NewReader(group), func(g user.Group) bool { return uint64(g.Gid) == gid })
	if err != nil {
		return a, fmt.Errorf("reading /etc/group: %w", err)
	}
	if len(known) == 0 {
		a.Group = fmt.Sprintf("%d:x:%d:%s\n", gid, gid, name)
	}
	return a, nil
}

// passwdLine names an unknown user by its number. Podman names uid 0 as the
// host does, where it is always root.
func passwdLine(uid uint64, gid int, home string) string {
	if uid == 0 {
		return fmt.Sprintf("root:*:0:%d:root:%s:/bin/sh\n", gid, home)
	}
	return fmt.Sprintf("%d:*:%d:%d:container user:%s:/bin/sh\n", uid, uid, gid, home)
}

// Append is text with line at its end, on a line of its own whether or not
// text ends in one.
func Append(text []byte, line string) []byte {
	out := bytes.Clone(text)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return append(out, line...)
}
