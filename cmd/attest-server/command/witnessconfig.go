package command

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
)

// WitnessConfig is an entry of Witness.
type WitnessConfig struct {
	// Name is what the log, and errors, call it. Default: URL.
	Name string `toml:"name"`
	// URL is file:///DIR, a directory elsewhere; or https://..., an object to
	// GET and PUT; or, if there is a Key, where a C2SP tlog-witness answers, such
	// as another attest-server's witness_listen. http:// is for this machine alone.
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
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("url %q, expected file:///DIR or https://HOST/PATH, without a password", w.URL)
	}
	// Who is on the way could show what the witness had seen before a rollback, or
	// an old signature of it.
	if u.Scheme == "http" && !onThisMachine(u.Hostname()) {
		return nil, fmt.Errorf("url %q, expected https: over http others can answer for it", w.URL)
	}
	if u.Scheme == "http" && w.CA+w.TokenFile != "" {
		return nil, fmt.Errorf("url %q with ca or token_file, expected https", w.URL)
	}
	web, err := w.web()
	if err != nil || w.Key == "" {
		return witness.Object{Web: web}, err
	}
	if n.Key, err = checkpoint.ParseWitnessKey(w.Key); err != nil {
		return nil, err
	}
	return witness.Peer{Web: web}, nil
}

func onThisMachine(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// web is how a witness on the network is reached.
func (w WitnessConfig) web() (*witness.Web, error) {
	var roots *x509.CertPool
	if w.CA != "" {
		var err error
		if roots, err = face.Roots("ca", w.CA); err != nil {
			return nil, err
		}
	}
	var token func() (secret.Bytes, error)
	if w.TokenFile != "" {
		token = func() (secret.Bytes, error) { return face.ReadSecretFile(w.TokenFile) }
	}
	return witness.NewWeb(strings.TrimSuffix(w.URL, "/"), roots, token), nil
}
