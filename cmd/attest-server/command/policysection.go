package command

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
)

// policySection is the policy of that section; nil if there is none, or if it
// says that there shall be none. It is yet to be checked.
func policySection(section map[string]any) (*kbs.Policy, error) {
	if section == nil {
		return nil, nil
	}
	if none, there := section["none"]; there {
		if none != true || len(section) > 1 {
			return nil, errors.New("[policy]: none, expected none = true and nothing beside it, or no such field")
		}
		return nil, nil
	}
	b, err := json.Marshal(section)
	if err != nil {
		return nil, fmt.Errorf("[policy]: %w", err)
	}
	p, err := policy.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("[policy]: %w", err)
	}
	return &p, nil
}
