package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/contexts"
)

// connection is what it takes to speak to an attestation server as one of its
// users.
type connection struct {
	server, ca, tokenFile string
}

// connectionOf is what flags and environment say, and for what they leave out,
// the context in use. Its token and certificates are for its own server alone.
func connectionOf(c *cli.Context) (connection, error) {
	return withContext(connection{c.String("server"), c.String("ca"), c.String("token-file")})
}

func withContext(v connection) (connection, error) {
	if v.server != "" && v.tokenFile != "" {
		return v, nil
	}
	store, err := contexts.User()
	if err != nil {
		return v, nil // no home, so no contexts
	}
	in, err := store.Current()
	switch {
	case errors.Is(err, contexts.ErrNone):
		return v, nil
	case err != nil:
		return v, err
	case v.server != "" && v.server != in.Server:
		return v, nil
	}
	v.server = in.Server
	if v.ca == "" {
		v.ca = in.CAFile
	}
	if v.tokenFile == "" {
		v.tokenFile = in.TokenFile
	}
	return v, nil
}

// admin is the client for the server that c means.
func admin(c *cli.Context) (*kbs.AdminClient, error) {
	v, err := connectionOf(c)
	if err != nil {
		return nil, err
	}
	return adminClient(v.server, v.ca, v.tokenFile)
}

// registrar is where a build registers: --server, the context's, or the first
// of the servers that guests ask, which --attest-ca then vouches for.
func registrar(c *cli.Context, guests []string) (connection, error) {
	v, err := connectionOf(c)
	if err != nil {
		return v, err
	}
	if v.server == "" && len(guests) > 0 {
		v.server = guests[0]
	}
	if v.ca == "" {
		v.ca = c.String("attest-ca")
	}
	return v, nil
}
