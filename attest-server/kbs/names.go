package kbs

import (
	"fmt"
	"net/url"
	"regexp"
)

var workloadID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// ValidWorkloadID says whether id may name a workload: up to 128 letters,
// digits, '.', '_' and '-', the first a letter or digit.
func ValidWorkloadID(id string) bool { return workloadID.MatchString(id) }

// CheckServerURL accepts https://HOST[:PORT], which a slash may end, and
// nothing more.
func CheckServerURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("server URL: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return fmt.Errorf("server URL %q: expected https://HOST[:PORT] without path or user", raw)
	}
	return nil
}

// CheckpointHeader is the header of answers with a secret that holds, in base64,
// the head of the audit log that witnesses have: a signed note of C2SP
// tlog-checkpoint. Guests may leave it alone.
const CheckpointHeader = "Ccrun-Checkpoint"
