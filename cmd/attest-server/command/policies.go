package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// readPolicy reads the file path; - is standard input.
func readPolicy(c *cli.Context, path string) (kbs.Policy, error) {
	b, err := face.Read(c, path, kbs.MaxPolicyBody)
	if err != nil {
		return kbs.Policy{}, fmt.Errorf("reading policy: %w", err)
	}
	p, err := policy.Parse(b)
	if err != nil {
		return kbs.Policy{}, hint.With(fmt.Errorf("%s: %w", path, err),
			`a policy is JSON, such as {"snp": {"minimum_guest_svn": 2}}; docs/verification.md, ccrun-verification(7), has every rule`)
	}
	return p, nil
}

func tenantPolicy(c *cli.Context) error {
	name, remove := c.Args().First(), c.Bool("remove")
	if err := face.Args(c, 1, 2, "NAME [FILE]"); err != nil {
		return err
	}
	if c.NArg() == 2 {
		if remove {
			return face.Usagef("tenant policy: --remove takes no FILE")
		}
		return setTenantPolicy(c, name, c.Args().Get(1))
	}
	return withStore(c, func(s *store.DB) error {
		if remove {
			return s.SetTenantPolicy(c.Context, name, nil, "local")
		}
		b, err := s.TenantPolicy(c.Context, name)
		if err != nil {
			return err
		}
		if b == nil {
			return fmt.Errorf("tenant %s has no policy", name)
		}
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.App.Writer, out.String())
		return err
	})
}

// setTenantPolicy refuses what the server's route would, as far as --config
// tells of the server's own policy.
func setTenantPolicy(c *cli.Context, name, path string) error {
	p, err := readPolicy(c, path)
	if err != nil {
		return err
	}
	compiler, err := policy.NewCompiler()
	if err != nil {
		return err
	}
	if err := compiler.CheckDefaults(p, time.Now()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	parts, err := serverPart(c)
	if err != nil {
		return err
	}
	if err := policy.Agree(append(parts, policy.Part{Level: kbs.LevelTenant, Policy: p})...); err != nil {
		return err
	}
	return withStore(c, func(s *store.DB) error { return s.SetTenantPolicy(c.Context, name, &p, "local") })
}

// serverPart is the server's policy, if --config names one.
func serverPart(c *cli.Context) ([]policy.Part, error) {
	cfg, err := storeConfig(c)
	if err != nil {
		return nil, err
	}
	p, err := cfg.policy()
	if err != nil || p == nil {
		return nil, err
	}
	return []policy.Part{{Level: kbs.LevelServer, Policy: *p}}, nil
}

func checkPolicy(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "FILE"); err != nil {
		return err
	}
	p, err := readPolicy(c, c.Args().First())
	if err != nil {
		return err
	}
	compiler, err := policy.NewCompiler()
	if err != nil {
		return err
	}
	check := compiler.Check
	if c.Bool("defaults") {
		check = compiler.CheckDefaults
	}
	if err := check(p, time.Now()); err != nil {
		return fmt.Errorf("%s: %w", c.Args().First(), err)
	}
	_, err = fmt.Fprintln(c.App.Writer, "policy is right")
	return err
}
