package kbs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/secret"
)

const (
	// MaxConfigBytes bounds a workload's configuration in its RFC 8785 form.
	MaxConfigBytes = 32 << 10
	// MaxConfigBody bounds a request to change one.
	MaxConfigBody = 128 << 10

	maxConfigVariables = 256
	maxConfigArgs      = 256
	maxVariableName    = 128
)

// ValidVariable says whether name may name an environment variable: letters,
// digits and '_', no digit first.
func ValidVariable(name string) bool {
	return bounded.Name(name, maxVariableName, bounded.Letters+"_", bounded.Letters+bounded.Digits+"_")
}

// WorkloadConfig is what the owner of a workload gives its process beside what
// is in the image. What of it the process gets, the image's measured policy
// says; its agent enforces that.
type WorkloadConfig struct {
	Env map[string]string `json:"env,omitempty"`
	// Args take the place of the image's Cmd. nil: they do not.
	Args []string `json:"args,omitzero"`
}

// ConfigName is the name under which a workload's configuration is sealed to a
// TEEKey: see ReleaseInfo.
func ConfigName(workloadID string) string { return "workload/" + workloadID + "/config" }

// Empty says whether there is nothing in it.
func (c *WorkloadConfig) Empty() bool { return len(c.Env) == 0 && c.Args == nil }

// Validate refuses what no process could get.
func (c *WorkloadConfig) Validate() error {
	if len(c.Env) > maxConfigVariables || len(c.Args) > maxConfigArgs {
		return fmt.Errorf("%d variables and %d arguments, at most %d and %d allowed", len(c.Env), len(c.Args), maxConfigVariables, maxConfigArgs)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		if !ValidVariable(name) {
			return fmt.Errorf("variable %.40q: expected a name of up to %d letters, digits and '_', no digit first", name, maxVariableName)
		}
		if err := checkText(c.Env[name]); err != nil {
			return fmt.Errorf("variable %s %w", name, err)
		}
	}
	for i, a := range c.Args {
		if err := checkText(a); err != nil {
			return fmt.Errorf("argument %d %w", i+1, err)
		}
	}
	return nil
}

// checkText says what is wrong with a value, never what the value is.
func checkText(s string) error {
	switch {
	case strings.IndexByte(s, 0) >= 0:
		return errors.New("has a NUL byte, which Linux takes for its end")
	case !utf8.ValidString(s):
		return errors.New("is no UTF-8 text: bytes of other kinds are secrets in files")
	}
	return nil
}

// Encode is c as it is kept and released: valid, bounded, in RFC 8785 form.
func (c *WorkloadConfig) Encode() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b, err := Canonical(c)
	if err == nil && len(b) > MaxConfigBytes {
		err = fmt.Errorf("configuration of %d bytes, at most %d allowed: %w", len(b), MaxConfigBytes, ErrTooLarge)
	}
	return b, err
}

// DecodeConfig takes what Encode makes and nothing else.
func DecodeConfig(b []byte) (*WorkloadConfig, error) {
	if len(b) > MaxConfigBytes {
		return nil, fmt.Errorf("configuration of %d bytes, at most %d allowed: %w", len(b), MaxConfigBytes, ErrTooLarge)
	}
	var c WorkloadConfig
	if err := UnmarshalCanonical(b, &c); err != nil {
		return nil, fmt.Errorf("decoding configuration: %w", err)
	}
	return &c, c.Validate()
}

// ConfigChange changes a workload's configuration: PUT
// /v1/workloads/{id}/config. What it does not name stays, so that who sets one
// variable need not know the others' values, which nobody is shown.
type ConfigChange struct {
	Set       WorkloadConfig `json:"set,omitzero"`
	Unset     []string       `json:"unset,omitempty"`      // names of variables
	UnsetArgs bool           `json:"unset_args,omitempty"` // back to the image's Cmd
	Replace   bool           `json:"replace,omitempty"`    // nothing of before stays
}

// Apply is have as c changes it.
func (c *ConfigChange) Apply(have WorkloadConfig) (WorkloadConfig, error) {
	next := WorkloadConfig{Env: map[string]string{}, Args: have.Args}
	if !c.Replace {
		maps.Copy(next.Env, have.Env)
	} else {
		next.Args = nil
	}
	for _, name := range c.Unset {
		if _, ok := next.Env[name]; !ok {
			return next, fmt.Errorf("variable %.40q is not set", name)
		}
		delete(next.Env, name)
	}
	if c.UnsetArgs {
		next.Args = nil
	}
	maps.Copy(next.Env, c.Set.Env)
	if c.Set.Args != nil {
		next.Args = c.Set.Args
	}
	return next, nil
}

// ConfigAnswer is the answer to a ConfigChange.
type ConfigAnswer struct {
	Version int64 `json:"version"`
	Created bool  `json:"created"` // false: the newest version was this already
}

// ConfigMeta is everything about a workload's configuration but its values: the
// answer to GET /v1/workloads/{id}/config.
type ConfigMeta struct {
	WorkloadID string          `json:"workload_id"`
	Versions   []ConfigVersion `json:"versions"` // newest first
}

// ConfigVersion is one configuration that a workload has or had.
type ConfigVersion struct {
	Version     int64      `json:"version"`
	Env         []string   `json:"env"`                 // names, sorted
	Args        *int       `json:"arguments,omitempty"` // how many; absent: the image's
	CreatedAt   time.Time  `json:"created_at"`
	CreatedBy   string     `json:"created_by"`
	Releases    int64      `json:"releases"`
	LastRelease *time.Time `json:"last_release,omitempty"`
}

func configPath(id string) string { return workloadPath(id) + "/config" }

// SetConfig changes a workload's configuration.
func (c *AdminClient) SetConfig(ctx context.Context, id string, change ConfigChange) (*ConfigAnswer, error) {
	var a ConfigAnswer
	if err := c.do(ctx, http.MethodPut, configPath(id), change, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// ConfigMeta is what is known of a workload's configuration but its values.
func (c *AdminClient) ConfigMeta(ctx context.Context, id string) (*ConfigMeta, error) {
	var m ConfigMeta
	if err := c.do(ctx, http.MethodGet, configPath(id), nil, &m); err != nil {
		return nil, err
	}
	return &m, nil
}

// RemoveConfig deletes every version of a workload's configuration.
func (c *AdminClient) RemoveConfig(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, configPath(id), nil, nil)
}

// Config fetches the workload's configuration, encoded, in the guest's session.
// Where the owner has set none it is empty.
func (s *Session) Config(ctx context.Context) (secret.Bytes, error) {
	id := s.req.WorkloadID
	return s.fetch(ctx, configPath(id), ConfigName(id))
}
