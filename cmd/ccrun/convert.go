package main

import (
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func convertCommand() *cli.Command {
	c := buildCommand()
	c.Name = "convert"
	c.Usage = "turn a workload image of buildah mkcw into one of ours"
	c.Description = `SOURCE is a workload image whose disk's passphrase is known: of buildah mkcw,
podman build --cw, oci2cw or --classic. Its files and its process are built
anew, with integrity, a measurement and keys of their own. The old disk has no
integrity: what is converted is what its image's digest names.

Example:
   ccrun convert --source-passphrase-file old.pass --attest-url https://kbs.example:8443 --dns 9.9.9.9 \
       --attest-ca ca.pem --token-file token docker://registry.example/app-mkcw docker://registry.example/app-cw`
	c.Action = func(c *cli.Context) error {
		if c.String("source-passphrase-file") == "" {
			return hint.With(face.Usagef("convert needs the passphrase of the source's disk"), "give --source-passphrase-file FILE; `ccrun build` takes ordinary images")
		}
		return runBuild(c)
	}
	return c
}
