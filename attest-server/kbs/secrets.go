package kbs

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ccrun/ccrun/secret"
)

const (
	// MaxSecrets is how many resources a guest may ask for at once, and how many
	// its image may name.
	MaxSecrets = 128
	// MaxSecretsBytes bounds their values together.
	MaxSecretsBytes = 1 << 20
	// MaxSecretsBody bounds a request for them, MaxSecretsAnswer what is sealed
	// and encoded in the answer.
	MaxSecretsBody   = 64 << 10
	MaxSecretsAnswer = 4 << 20
	// MaxSecretsListed is how many a SecretList has at most.
	MaxSecretsListed = 1000
)

// SecretsRequest asks for several resources at once, which costs little more than
// one: POST /v1/workloads/{id}/secrets, in a granted session.
type SecretsRequest struct {
	Names []string `json:"names"` // REPO/TYPE/TAG, each once
}

// SecretsAnswer is the plaintext of the answer, which is sealed to the session's
// TEEKey under SecretsName: what was asked for, in that order.
type SecretsAnswer struct {
	Secrets []ReleasedSecret `json:"secrets"`
}

// ReleasedSecret is a resource's newest value, or why the workload does not get
// it.
type ReleasedSecret struct {
	Name    string `json:"name"`
	Version int64  `json:"version,omitempty"`
	Value   []byte `json:"value,omitempty"`
	// Refused is CodeNotFound (there is none for this workload) or CodeForbidden
	// (an approval is missing).
	Refused string `json:"refused,omitempty"`
}

// SecretsName is the name under which several resources are sealed: see
// ReleaseInfo.
func SecretsName(workloadID string) string { return "workload/" + workloadID + "/secrets" }

// ParseSecretNames reads the names of a request.
func ParseSecretNames(names []string) ([]ResourceID, error) {
	if len(names) == 0 || len(names) > MaxSecrets {
		return nil, fmt.Errorf("%d names, expected 1 to %d", len(names), MaxSecrets)
	}
	ids, seen := make([]ResourceID, len(names)), map[string]bool{}
	for i, name := range names {
		var err error
		if ids[i], err = ParseResourceID(name); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("%s is named twice", name)
		}
		seen[name] = true
	}
	return ids, nil
}

// Secret is what a guest got of one resource.
type Secret struct {
	Version int64
	Value   secret.Bytes
	Refused string // as in ReleasedSecret
}

// Secrets are what a guest got, by name.
type Secrets map[string]Secret

// Wipe overwrites every value.
func (s Secrets) Wipe() {
	for _, v := range s {
		v.Value.Wipe()
	}
}

// decodeSecrets takes an answer to exactly these names.
func decodeSecrets(plain secret.Bytes, names []string) (Secrets, error) {
	var a SecretsAnswer
	if err := UnmarshalStrict(plain.Reveal(), &a); err != nil {
		return nil, errors.New("the secrets are not what a server makes") // the cause could quote them
	}
	all := Secrets{}
	for _, r := range a.Secrets {
		all[r.Name] = Secret{r.Version, secret.New(r.Value), r.Refused}
	}
	if err := checkSecrets(a.Secrets, all, names); err != nil {
		all.Wipe()
		return nil, err
	}
	return all, nil
}

func checkSecrets(got []ReleasedSecret, all Secrets, names []string) error {
	if len(got) != len(names) {
		return fmt.Errorf("the server answers with %d secrets, expected %d", len(got), len(names))
	}
	for i, name := range names {
		s := all[name]
		switch n := s.Value.Len(); {
		case got[i].Name != name:
			return fmt.Errorf("secret %d of the answer is %.200q, expected %s", i+1, got[i].Name, name)
		case s.Refused == "" && (n == 0 || n > MaxResourceBytes || s.Version < 1):
			return fmt.Errorf("secret %s of %d bytes, version %d, expected 1 to %d bytes", name, n, s.Version, MaxResourceBytes)
		case s.Refused != "" && (n != 0 || s.Refused != CodeNotFound && s.Refused != CodeForbidden):
			return fmt.Errorf("secret %s is refused as %.40q, with %d bytes", name, s.Refused, n)
		}
	}
	return nil
}

// Secrets fetches several resources, their newest versions, in the guest's
// session. What the workload may not have is in the answer, too.
func (s *Session) Secrets(ctx context.Context, names []string) (Secrets, error) {
	if _, err := ParseSecretNames(names); err != nil {
		return nil, &localError{err}
	}
	id := s.req.WorkloadID
	var sealed Sealed
	if err := s.x.do(ctx, http.MethodPost, secretsPath(id), SecretsRequest{names}, &sealed, MaxSecretsAnswer); err != nil {
		return nil, err
	}
	s.req.reportTime(sealed.ServerTime)
	plain, err := openUpTo(s.teeKey, sealed, ReleaseInfo(s.rd, SecretsName(id)), MaxSecretsAnswer)
	if err != nil {
		return nil, err
	}
	defer plain.Wipe()
	return decodeSecrets(plain, names)
}

func secretsPath(id string) string { return workloadPath(id) + "/secrets" }

// SecretStatus is a resource that a workload may get.
type SecretStatus struct {
	Name      string `json:"name"`
	Version   int64  `json:"version"`
	SizeBytes int64  `json:"size_bytes"`
	// Missing are the tenants whose approval it still lacks.
	Missing []string `json:"missing_approvals,omitempty"`
}

// SecretList is every resource that a workload may get, by name: GET
// /v1/workloads/{id}/secrets, for an owner. There are no values in it.
type SecretList struct {
	Secrets []SecretStatus `json:"secrets"`
	More    bool           `json:"more,omitempty"` // there are more than are listed
}

// WorkloadSecrets is what a workload may get, but for the values.
func (c *AdminClient) WorkloadSecrets(ctx context.Context, id string) (*SecretList, error) {
	var l SecretList
	if err := c.do(ctx, http.MethodGet, secretsPath(id), nil, &l); err != nil {
		return nil, err
	}
	return &l, nil
}
