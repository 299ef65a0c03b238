package guest

import (
	"context"
	"fmt"
	"os"

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
	rules, err := b.wantedSecrets()
	if err != nil {
		return openly(err)
	}
	if b.secretRules, b.secretEnv = rules, map[string]string{}; len(rules) == 0 {
		return nil
	}
	var got kbs.Secrets
	err = b.inSession(ctx, "fetching the secrets", func(s *kbs.Session) (err error) {
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

// wantedSecrets are the image's, and what the host asks for, if the image's policy
// lets it ask and takes it. Nothing else of the host's request is read.
func (b *boot) wantedSecrets() ([]krun.SecretRule, error) {
	policy := &b.identity.Policy
	if len(policy.SecretAllow) == 0 {
		return policy.Secrets, nil
	}
	asked, err := b.readRequest()
	if err != nil {
		return nil, err
	}
	rules, err := krun.Requested(policy.Secrets, policy.SecretAllow, asked)
	if err != nil {
		return nil, err
	}
	return rules, krun.ValidateSecrets(rules, policy.EnvAllow, b.identity.Volumes)
}

// readRequest reads it once. A disk that ends before has none.
func (b *boot) readRequest() ([]string, error) {
	at, err := b.identity.Disk.LaunchBytes(b.identity.Scratch)
	if err != nil || b.disk.size < at+krun.RequestBytes {
		return nil, err
	}
	f, err := os.Open(b.disk.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw := make([]byte, krun.RequestBytes)
	if _, err := f.ReadAt(raw, at); err != nil {
		return nil, fmt.Errorf("reading the host's request: %w", err)
	}
	return krun.DecodeRequest(raw)
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
