package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
)

// policySection is the policy of that section; nil if there is none, or if it
// says that there shall be none. It is yet to be checked.
func policySection(section map[string]any) (*kbs.Policy, error) {
	if section == nil {
		return nil, nil
	}
	rules := maps.Clone(section)
	maps.DeleteFunc(rules, func(name string, _ any) bool { return name == advisoriesField || name == advisoryKeyField })
	if none, there := rules["none"]; there {
		if none != true || len(rules) > 1 {
			return nil, errors.New("[policy]: none, expected none = true and no rules beside it, or no such field")
		}
		return nil, nil
	}
	if len(rules) == 0 && len(section) > 0 {
		return nil, nil
	}
	b, err := json.Marshal(rules)
	if err != nil {
		return nil, fmt.Errorf("[policy]: %w", err)
	}
	p, err := policy.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("[policy]: %w", err)
	}
	return &p, nil
}
