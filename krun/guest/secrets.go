package guest

import (
	"context"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
)

// withSecrets puts the secrets' step among those of the disk: before the release
// is confirmed, after which the session gets none.
func withSecrets(disk []step) (steps []step) {
	for _, s := range disk {
		if s.name == "confirming the release" {
			steps = append(steps, step{"fetching the secrets", (*boot).fetchSecrets})
		}
		steps = append(steps, s)
	}
	return steps
}

// fetchSecrets gets what the image's policy names, in the session that gave the
// DiskKey, and leaves files in memory, and variables to configure. What is not
// optional must be there.
func (b *boot) fetchSecrets(ctx context.Context) error {
	rules := b.identity.Policy.Secrets
	if len(rules) == 0 {
		return nil
	}
	var got kbs.Secrets
	err := b.inSession(ctx, "fetching the secrets", func(s *kbs.Session) (err error) {
		if got, err = s.Secrets(ctx, krun.SecretNames(rules)); err == nil && b.renewalKey != nil {
			b.renewal, err = s.Renewal(ctx, b.renewalKey)
		}
		return err
	})
	if err != nil {
		return openly(b.refused(err))
	}
	defer got.Wipe()
	if b.secretEnv, err = secretVariables(rules, got); err != nil {
		return b.tellOwner(ctx, classed(classSecrets, err))
	}
	if err := (mount{"tmpfs", secretsMount, "tmpfs", noExec, secretsOptions}).do(); err != nil {
		return openly(err)
	}
	return openly(writeSecrets(secretsMount, rules, got))
}

// secretVariables are those of rules, if nothing is missing that has to be there.
func secretVariables(rules []krun.SecretRule, got kbs.Secrets) (env map[string]string, err error) {
	env = map[string]string{}
	for _, r := range rules {
		s := got[r.Name]
		switch {
		case s.Value.Len() == 0 && !r.Optional:
			return nil, fmt.Errorf("secret %s: %s", r.Name, whyNoSecret(s.Refused))
		case s.Value.Len() == 0 || r.Env == "":
			continue
		}
		if env[r.Env], err = krun.SecretVariable(s.Value.Reveal()); err != nil {
			return nil, fmt.Errorf("secret %s for variable %s: %w", r.Name, r.Env, err)
		}
	}
	return env, nil
}

func whyNoSecret(refused string) string {
	if refused == kbs.CodeForbidden {
		return "a tenant's approval of it for this workload is missing"
	}
	return "the server has none of that name for this workload"
}
