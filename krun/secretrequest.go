package krun

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// SecretsAnnotation of a container is what its host asks for at launch: SecretRules
// as they are written, each on a line. The runtime leaves it in plain on the disk,
// behind the scratch area, where the guest finds it: a request, which the image's
// policy judges.
const SecretsAnnotation = "io.ccrun.secrets"

const (
	// RequestBytes is the room for it, at DiskIdentity.LaunchBytes.
	RequestBytes = 16 << 10
	requestMagic = "ccrun request v1\x00"

	maxRequested = 32
)

// A SecretAllow is one of LaunchPolicy.SecretAllow: which resources the host may
// ask for. Without a variable they are files in SecretsDir.
type SecretAllow struct {
	pattern string // of path.Match, for REPO/TYPE/TAG
	env     string
}

// ParseSecretAllow reads REPO/TYPE/TAG with `*` for what is left open, and
// [,env=NAME].
func ParseSecretAllow(s string) (SecretAllow, error) {
	name, option, more := strings.Cut(s, ",")
	name = strings.TrimPrefix(name, secretScheme)
	a := SecretAllow{pattern: name}
	if more {
		env, ok := strings.CutPrefix(option, "env=")
		if !ok || !kbs.ValidVariable(env) {
			return a, fmt.Errorf("pattern %.80q: expected REPO/TYPE/TAG[,env=NAME]", s)
		}
		a.env = env
	}
	if strings.ContainsAny(name, `?[]\`) {
		return a, fmt.Errorf("pattern %.80q: expected letters, digits, '.', '_', '-' and '*'", s)
	}
	if _, err := kbs.ParseResourceID(strings.ReplaceAll(name, "*", "x")); err != nil {
		return a, fmt.Errorf("pattern %.80q: expected REPO/TYPE/TAG, each with letters, digits, '.', '_', '-' and '*'", s)
	}
	return a, nil
}

// allows says whether the host may ask for r.
func (a SecretAllow) allows(r SecretRule) bool {
	ok, err := path.Match(a.pattern, r.Name)
	return ok && err == nil && a.pattern != "" && a.env == r.Env && (r.Env != "" || strings.HasPrefix(r.Path, SecretsDir+"/"))
}

// CheckSecretAllow refuses patterns that nobody could mean.
func CheckSecretAllow(list []string) error {
	for _, s := range list {
		if _, err := ParseSecretAllow(s); err != nil {
			return err
		}
	}
	return nil
}

// Requested are the secrets of a launch: the image's own and then, if all are
// allowed, what the host asks for. Those that it asks for are needed, too.
func Requested(rules []SecretRule, allow, asked []string) ([]SecretRule, error) {
	all := append([]SecretRule(nil), rules...)
	for _, s := range asked {
		r, err := ParseSecretRule(s)
		if err != nil {
			return nil, err
		}
		allowed := false
		for _, a := range allow {
			p, err := ParseSecretAllow(a)
			allowed = allowed || err == nil && p.allows(r)
		}
		if !allowed {
			return nil, fmt.Errorf("secret %s was asked for at launch, and the image was not built with a --secret-allow that takes it", r)
		}
		all = append(all, r)
	}
	return all, nil
}

// launchRequest is the JSON behind requestMagic.
type launchRequest struct {
	Secrets []string `json:"secrets"`
}

// EncodeRequest is what the annotation says, as it lies on the disk.
func EncodeRequest(annotation string) ([]byte, error) {
	asked := strings.Split(annotation, "\n")
	if len(asked) > maxRequested {
		return nil, fmt.Errorf("%d secrets asked for, at most %d allowed", len(asked), maxRequested)
	}
	for _, s := range asked {
		if _, err := ParseSecretRule(s); err != nil {
			return nil, err
		}
	}
	js, err := kbs.Canonical(launchRequest{asked})
	if err != nil {
		return nil, err
	}
	b := make([]byte, RequestBytes)
	if n := copy(b, requestMagic); copy(b[n:], js) < len(js) {
		return nil, fmt.Errorf("request of %d bytes, at most %d allowed", len(js), RequestBytes-len(requestMagic))
	}
	return b, nil
}

// DecodeRequest takes what EncodeRequest made, and zeros, which ask for nothing.
func DecodeRequest(b []byte) (asked []string, err error) {
	text := bytes.TrimRight(b, "\x00")
	if len(text) == 0 {
		return nil, nil
	}
	js, ok := bytes.CutPrefix(text, []byte(requestMagic))
	if !ok || len(b) != RequestBytes {
		return nil, errors.New("what the host left on the disk is no request")
	}
	var r launchRequest
	if err := kbs.UnmarshalCanonical(js, &r); err != nil {
		return nil, fmt.Errorf("decoding the host's request: %w", err)
	}
	if len(r.Secrets) > maxRequested {
		return nil, fmt.Errorf("the host asks for %d secrets, at most %d allowed", len(r.Secrets), maxRequested)
	}
	return r.Secrets, nil
}
