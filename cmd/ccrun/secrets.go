package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload"
)

func secretFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "secret", Value: &stringList{}, Usage: "`RESOURCE` of the key server that the workload gets before it starts: kbs:///REPO/TYPE/TAG with ,target=PATH, a file in memory, " +
			"or ,env=NAME, and perhaps ,mode=OCTAL ,uid=N ,gid=N ,optional; a target without a slash in front is in " + krun.SecretsDir + "; may be repeated; measured"},
		&cli.GenericFlag{Name: "secret-allow", Value: &stringList{}, Usage: "`RESOURCES` that the host may ask for by --secret of ccrun run, in files in " + krun.SecretsDir + " or, with env, in that variable: " +
			"REPO/TYPE/TAG[,env=NAME], where * stands for any text; may be repeated; measured"},
		&cli.StringFlag{Name: "secret-refresh", Usage: "replace the files of secrets that have changed, every `DURATION[,signal=NAME]`, as in 10m,signal=HUP; measured"},
	}
}

// setSecrets reads what the image's workload gets of the key server's resources.
func setSecrets(c *cli.Context, o *workload.Options) error {
	for _, s := range *c.Generic("secret").(*stringList) {
		r, err := krun.ParseSecretRule(s)
		if err != nil {
			return face.Usagef("--secret: %w", err)
		}
		o.Policy.Secrets = append(o.Policy.Secrets, r)
	}
	o.Policy.SecretAllow = *c.Generic("secret-allow").(*stringList)
	if err := krun.CheckSecretAllow(o.Policy.SecretAllow); err != nil {
		return face.Usagef("--secret-allow: %w", err)
	}
	if s := c.String("secret-refresh"); s != "" {
		r, err := krun.ParseSecretRefresh(s)
		if err != nil {
			return face.Usagef("--secret-refresh: %w", err)
		}
		o.Policy.SecretRefresh = r
	}
	return nil
}

// askForSecrets leaves a request in the annotations of a container.
func askForSecrets(annotations map[string]string, list []string) error {
	for _, s := range list {
		r, err := krun.ParseSecretRule(s)
		if err != nil {
			return face.Usagef("--secret: %w", err)
		}
		if r.Link(0) != "" && r.Env == "" {
			return face.Usagef("--secret: %s: at launch a file is in %s: give a target without a slash in front", r.Name, krun.SecretsDir)
		}
	}
	if len(list) > 0 {
		annotations[krun.SecretsAnnotation] = strings.Join(list, "\n")
	}
	return nil
}
