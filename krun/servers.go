package krun

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
)

func (s Servers) validate() error {
	if len(s.URLs) == 0 || len(s.PinnedKeys) == 0 {
		return errors.New("identity without server URL or pinned server key")
	}
	for _, raw := range s.URLs {
		if err := ValidServerURL(raw); err != nil {
			return err
		}
	}
	for _, k := range s.PinnedKeys {
		if b, err := hex.DecodeString(k); err != nil || len(b) != 32 {
			return fmt.Errorf("pinned key %q: expected the SHA-256 of a public key, 64 hex digits", k)
		}
	}
	return nil
}

// ValidServerURL accepts https://HOST[:PORT] and nothing more.
func ValidServerURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("server URL: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return fmt.Errorf("server URL %q: expected https://HOST[:PORT] without path or user", raw)
	}
	return nil
}
