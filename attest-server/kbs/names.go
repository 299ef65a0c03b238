package kbs

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// ValidWorkloadID says whether id may name a workload: up to 128 letters,
// digits, '.', '_' and '-', the first a letter or digit.
func ValidWorkloadID(id string) bool {
	return bounded.Name(id, 128, bounded.Letters+bounded.Digits, bounded.Letters+bounded.Digits+"._-")
}

// MaxVersions bounds the versions of a workload that a server keeps.
const MaxVersions = 16

// SplitVersion reads what owners call a workload by: ID, its newest version, for
// which version is 0, or ID@N, one version of it.
func SplitVersion(name string) (id string, version int64, ok bool) {
	id, number, versioned := strings.Cut(name, "@")
	if !versioned {
		return id, 0, ValidWorkloadID(id)
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != number || !ValidWorkloadID(id) {
		return "", 0, false
	}
	return id, n, true
}

// VersionName names one version of a workload.
func VersionName(id string, version int64) string { return id + "@" + strconv.FormatInt(version, 10) }

// WorkloadOf is the workload that a name is of, whatever version it names.
func WorkloadOf(name string) string {
	id, _, _ := strings.Cut(name, "@")
	return id
}

// CheckServerURL accepts https://HOST[:PORT], which a slash may end, and
// nothing more.
func CheckServerURL(raw string) error {
	u, err := url.Parse(raw)
	if err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && (u.Path == "" || u.Path == "/") {
		return nil
	}
	wrong := fmt.Errorf("server URL %.200q: expected https://HOST[:PORT] without path or user", raw)
	// What was meant, if it is plain.
	_, host, found := strings.Cut(raw, "://")
	if !found {
		host = raw
	}
	host, _, _ = strings.Cut(host, "/")
	if meant, err := url.Parse("https://" + host); err == nil && meant.Host != "" && meant.User == nil && meant.RawQuery == "" && meant.Fragment == "" {
		return hint.With(wrong, "say https://%s", host)
	}
	return wrong
}

// CheckpointHeader is the header of answers with a secret that holds, in base64,
// the head of the audit log that witnesses have: a signed note of C2SP
// tlog-checkpoint. Guests may leave it alone.
const CheckpointHeader = "Ccrun-Checkpoint"
