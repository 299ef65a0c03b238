package command

import (
	"cmp"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/cmd/face"
)

// WitnessConfig is an entry of Witness.
type WitnessConfig struct {
	// Name is what the log, and errors, call it. Default: URL.
	Name string `toml:"name"`
	// URL is file:///DIR, a directory elsewhere; or http(s)://..., an object to
	// GET and PUT; or, if there is a Key, where a C2SP tlog-witness answers, such
	// as another attest-server's witness_listen.
	URL string `toml:"url"`
	// Key is the witness's public key, as it prints it: NAME+ID+BASE64.
	Key string `toml:"key"`
	// CA is a PEM file to trust for TLS. Default: the system's authorities.
	CA string `toml:"ca"`
	// TokenFile holds a bearer token for it. Default: none.
	TokenFile string `toml:"token_file"`
	// Optional lets the server start while it is out of reach.
	Optional bool `toml:"optional"`
}

const defaultWitnessInterval = time.Minute

// openWitnesses are those of list.
func openWitnesses(list []WitnessConfig, optional bool) (all []witness.Named, err error) {
	names := map[string]bool{}
	for _, w := range list {
		n := witness.Named{Name: cmp.Or(w.Name, w.URL), Optional: w.Optional || optional}
		if names[n.Name] {
			return nil, face.Usagef("two witnesses are named %q", n.Name)
		}
		names[n.Name] = true
		if n.Witness, err = w.open(&n); err != nil {
			return nil, face.Usagef("witness %s: %w", n.Name, err)
		}
		all = append(all, n)
	}
	return all, nil
}

// open is the witness at URL.
func (w WitnessConfig) open(n *witness.Named) (witness.Witness, error) {
	u, err := url.Parse(w.URL)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		if u.Host != "" || !filepath.IsAbs(u.Path) || w.Key+w.CA+w.TokenFile != "" || u.RawQuery+u.Fragment != "" {
			return nil, fmt.Errorf("url %q, expected file:///DIR, without key, ca or token_file", w.URL)
		}
		return witness.File{Dir: u.Path}, nil
	}
	return nil, fmt.Errorf("url %q, expected file:///DIR", w.URL)
}
