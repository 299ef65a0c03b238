package workload

import (
	"fmt"
	"path"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/rootfs"
)

// placeSecrets puts a link to each secret that the workload looks for outside
// krun.SecretsDir into the tree, and returns the rules with the paths that those
// have: a directory on the way may be a link. What the image has at such a path
// is not replaced: either would be what somebody did not mean.
func placeSecrets(tree *rootfs.Tree, policy *krun.LaunchPolicy, volumes []krun.Volume, warn func(string)) error {
	if len(policy.Secrets) == 0 {
		return nil
	}
	rules := make([]krun.SecretRule, len(policy.Secrets))
	for i, r := range policy.Secrets {
		if r.Path != "" {
			at, err := tree.RealPath(r.Path)
			if err != nil {
				return badTarget(fmt.Errorf("secret %s: %w", r.Name, err))
			}
			r.Path = at
		}
		rules[i] = r
	}
	policy.Secrets = rules
	if err := krun.ValidateSecrets(policy.Secrets, policy.EnvAllow, volumes); err != nil {
		return hint.Usagef("%w", err)
	}
	if err := checkSecretsDir(tree, warn); err != nil {
		return badTarget(err)
	}
	for i, r := range rules {
		if r.Path == "" {
			continue
		}
		if n := tree.Lookup(r.Path); n != nil {
			return badTarget(fmt.Errorf("secret %s at %s: the image has a %s there", r.Name, r.Path, n.Kind))
		}
		if link := r.Link(i); link != "" {
			if err := tree.AddLink(r.Path, link); err != nil {
				return badTarget(fmt.Errorf("secret %s: %w", r.Name, err))
			}
		}
	}
	return nil
}

func badTarget(err error) error {
	return hint.With(hint.Usagef("%w", err), "give --secret another target, or one without a slash in front: it is in %s then", krun.SecretsDir)
}

// checkSecretsDir refuses an image in which a mount on krun.SecretsDir would be
// somewhere else.
func checkSecretsDir(tree *rootfs.Tree, warn func(string)) error {
	for _, dir := range []string{path.Dir(krun.SecretsDir), krun.SecretsDir} {
		n := tree.Lookup(dir)
		if n == nil {
			return nil
		}
		if n.Kind != rootfs.Directory {
			return fmt.Errorf("%s of the image is a %s, expected a directory or nothing", dir, n.Kind)
		}
		if dir == krun.SecretsDir && n.ChildCount() > 0 {
			warn("what the image has in " + dir + " is hidden by the secrets that are mounted there")
		}
	}
	return nil
}
