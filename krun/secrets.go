package krun

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// SecretsDir is where a workload sees the file system in memory that its secrets
// are in, as under Podman.
const SecretsDir = "/run/secrets"

// elsewhere holds, in SecretsDir, what is seen at other paths: those are links to
// here, which the build puts into the image.
const elsewhere = ".at"

const (
	// DefaultSecretMode is Podman's.
	DefaultSecretMode = 0o444

	maxSecretPath  = 256
	maxSecretDepth = 8 // below SecretsDir
)

// SecretRule is measured: a resource of the key server that the workload gets
// before it starts, in a file or in a variable.
type SecretRule struct {
	Name string `json:"name"` // REPO/TYPE/TAG
	// Path is where the workload finds the file; empty: it is for Env.
	Path string `json:"path,omitempty"`
	Env  string `json:"env,omitempty"`
	// Mode, UID and GID are the file's. Mode 0 is DefaultSecretMode.
	Mode uint32 `json:"mode,omitempty"`
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
	// Optional: the workload starts without it, too.
	Optional bool `json:"optional,omitempty"`
}

// Permissions are the file's.
func (r SecretRule) Permissions() uint32 {
	if r.Mode == 0 {
		return DefaultSecretMode
	}
	return r.Mode
}

// Link is the target of the link that the image has at Path; empty for a file in
// SecretsDir.
func (r SecretRule) Link(i int) string {
	if strings.HasPrefix(r.Path, SecretsDir+"/") {
		return ""
	}
	return SecretsDir + "/" + r.Place(i)
}

// Place is where in the file system of secrets the file of the i-th rule is.
func (r SecretRule) Place(i int) string {
	if below, ok := strings.CutPrefix(r.Path, SecretsDir+"/"); ok {
		return below
	}
	return path.Join(elsewhere, strconv.Itoa(i), path.Base(r.Path))
}

// String says it to people.
func (r SecretRule) String() string {
	optional := ""
	if r.Optional {
		optional = ", optional"
	}
	if r.Env != "" {
		return fmt.Sprintf("%s in variable %s%s", r.Name, r.Env, optional)
	}
	return fmt.Sprintf("%s at %q, mode %04o, owner %d:%d%s", r.Name, r.Path, r.Permissions(), r.UID, r.GID, optional)
}

func (r SecretRule) validate() error {
	id, err := kbs.ParseResourceID(r.Name)
	switch {
	case err != nil:
		return fmt.Errorf("secret: %w", err)
	case id.Repo == kbs.DiskKeyRepo && (id.Type == kbs.DiskKeyType || id.Type == kbs.StagedDiskKeyType):
		return fmt.Errorf("secret %s is a workload's disk key, which no workload gets", r.Name)
	case (r.Path == "") == (r.Env == ""):
		return fmt.Errorf("secret %s has path %.70q and variable %.40q, expected one of both", r.Name, r.Path, r.Env)
	case r.Env != "" && !kbs.ValidVariable(r.Env):
		return fmt.Errorf("secret %s in variable %.40q, expected letters, digits and '_'", r.Name, r.Env)
	case r.Env != "" && (r.Mode != 0 || r.UID != 0 || r.GID != 0):
		return fmt.Errorf("secret %s in variable %s with mode, uid or gid, which files have", r.Name, r.Env)
	case r.Mode > 0o777:
		return fmt.Errorf("secret %s with mode %#o, expected 0001 to 0777", r.Name, r.Mode)
	case r.UID > 1<<31-1 || r.GID > 1<<31-1:
		return fmt.Errorf("secret %s of uid %d and gid %d, expected numbers below 2^31", r.Name, r.UID, r.GID)
	case r.Path != "":
		return checkSecretPath(r)
	}
	return nil
}

func checkSecretPath(r SecretRule) error {
	p := r.Path
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || len(p) > maxSecretPath || !utf8.ValidString(p) || strings.ContainsAny(p, "\x00\n") {
		return fmt.Errorf("secret %s at %.70q, expected a clean absolute path of up to %d bytes", r.Name, p, maxSecretPath)
	}
	if name, ok := strings.CutPrefix(p, SecretsDir+"/"); ok {
		if first, _, _ := strings.Cut(name, "/"); first == elsewhere || strings.Count(name, "/") >= maxSecretDepth {
			return fmt.Errorf("secret %s at %s, expected at most %d names below %s, the first not %s", r.Name, p, maxSecretDepth, SecretsDir, elsewhere)
		}
		return nil
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		if below(p, dir) || below(dir, p) {
			return fmt.Errorf("secret %s at %s: %s is made anew in each guest; %s has room for any name", r.Name, p, dir, SecretsDir)
		}
	}
	return nil
}

// ValidateSecrets refuses what a guest could not do, or would do in two ways:
// envAllow are the variables that the workload's configuration may set.
func ValidateSecrets(rules []SecretRule, envAllow []string, volumes []Volume) error {
	if len(rules) > kbs.MaxSecrets {
		return fmt.Errorf("%d secrets, at most %d allowed", len(rules), kbs.MaxSecrets)
	}
	for _, v := range volumes {
		if len(rules) > 0 && below(v.Path, SecretsDir) {
			return fmt.Errorf("volume %s at %s, where the secrets are", v.Name, v.Path)
		}
	}
	for i, r := range rules {
		if err := r.validate(); err != nil {
			return err
		}
		for _, o := range rules[:i] {
			switch {
			case r.Env != "" && r.Env == o.Env:
				return fmt.Errorf("secrets %s and %s in variable %s", o.Name, r.Name, r.Env)
			case r.Path != "" && o.Path != "" && (below(r.Path, o.Path) || below(o.Path, r.Path)):
				return fmt.Errorf("secret %s at %s, in or around secret %s at %s", r.Name, r.Path, o.Name, o.Path)
			}
		}
		for _, v := range volumes {
			if r.Path != "" && (below(r.Path, v.Path) || below(v.Path, r.Path)) {
				return fmt.Errorf("secret %s at %s, in or around volume %s at %s", r.Name, r.Path, v.Name, v.Path)
			}
		}
		if r.Env != "" && slices.ContainsFunc(envAllow, func(s string) bool { return variableOf(s) == r.Env }) {
			return fmt.Errorf("variable %s is secret %s, and the workload's configuration could set it as well", r.Env, r.Name)
		}
	}
	return nil
}

func variableOf(rule string) string {
	name, _, _ := strings.Cut(rule, "=")
	return name
}

// SecretNames are the resources of the rules, each once.
func SecretNames(rules []SecretRule) (names []string) {
	for _, r := range rules {
		if !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	}
	return names
}

// ErrSecretText reports a secret for a variable that is no text.
var ErrSecretText = errors.New("it has a NUL byte or is no UTF-8 text, which no variable takes: use a file")

// SecretVariable is a secret's value as a variable has it.
func SecretVariable(value []byte) (string, error) {
	if !utf8.Valid(value) || slices.Contains(value, 0) {
		return "", ErrSecretText
	}
	return string(value), nil
}

const secretScheme = "kbs:///"

// ParseSecretRule reads kbs:///REPO/TYPE/TAG,target=PATH|env=NAME[,mode=OCTAL]
// [,uid=N][,gid=N][,optional]. A target without a slash in front is in SecretsDir.
func ParseSecretRule(s string) (r SecretRule, err error) {
	parts := strings.Split(s, ",")
	name, ok := strings.CutPrefix(parts[0], secretScheme)
	if !ok {
		return r, fmt.Errorf("secret %.80q, expected %sREPO/TYPE/TAG,target=PATH or ,env=NAME", s, secretScheme)
	}
	r.Name = name
	seen := map[string]bool{}
	for _, option := range parts[1:] {
		key, value, _ := strings.Cut(option, "=")
		if seen[key] {
			return r, fmt.Errorf("secret %s: %s is given twice", name, key)
		}
		seen[key] = true
		if err := r.set(key, value, option); err != nil {
			return r, fmt.Errorf("secret %.200s: %w", name, err)
		}
	}
	return r, r.validate()
}

func (r *SecretRule) set(key, value, option string) (err error) {
	number := func(base int) (n uint32) {
		var v uint64
		if v, err = strconv.ParseUint(value, base, 31); err != nil {
			err = fmt.Errorf("%.40q: expected a number", option)
		}
		return uint32(v)
	}
	switch {
	case key == "target" && value != "":
		if r.Path = value; !path.IsAbs(value) {
			r.Path = SecretsDir + "/" + value
		}
	case key == "env":
		r.Env = value
	case key == "mode":
		if r.Mode = number(8); err == nil && r.Mode == 0 {
			return errors.New("mode 0: nobody could read it")
		}
	case key == "uid":
		r.UID = number(10)
	case key == "gid":
		r.GID = number(10)
	case option == "optional":
		r.Optional = true
	default:
		return fmt.Errorf("%.40q: expected target=PATH, env=NAME, mode=OCTAL, uid=N, gid=N or optional", option)
	}
	return err
}
