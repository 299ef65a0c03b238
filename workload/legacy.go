package workload

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// LegacyRegistration is the body of POST /kbs/v0/register_workload, and what
// the record of a classic workload holds (buildah's mkcwtypes).
type LegacyRegistration struct {
	WorkloadID        string `json:"workload_id"`
	LaunchMeasurement string `json:"launch_measurement"` // hex
	Passphrase        string `json:"passphrase"`
	TEEConfig         string `json:"tee_config"` // JSON text
}

// legacySNPPolicy is the SNP policy that the old reference server stores:
// SMT and the reserved bit. buildah also sets DEBUG and MIGRATE_MA, with which
// the host may read the guest's memory.
const legacySNPPolicy = `{"flags":{"bits":3},"minfw":{"major":0,"minor":0}}`

// LegacyRegistrar is a server that speaks the legacy dialect.
type LegacyRegistrar interface {
	RegisterLegacy(context.Context, LegacyRegistration) error
}

// LegacyClient registers with a server of the legacy dialect. Ours wants a
// token; the reference server ignores it.
type LegacyClient struct {
	URL     string // https://HOST[:PORT]
	Token   secret.Bytes
	RootCAs *x509.CertPool // nil: the system's
	Timeout time.Duration  // zero: 30 s
}

// RegisterLegacy implements LegacyRegistrar.
func (c *LegacyClient) RegisterLegacy(ctx context.Context, r LegacyRegistration) error {
	if !strings.HasPrefix(c.URL, "https://") {
		return hint.With(fmt.Errorf("registering over %q: the passphrase would be sent in the clear", c.URL), "use https:// for --server; what the guest is told with --attest-url may differ")
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	defer clear(body)
	timeout := c.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+"/kbs/v0/register_workload", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+string(c.Token.Reveal()))
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs}}
	defer t.CloseIdleConnections()
	// No redirects: the body holds the passphrase.
	hc := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("server answered %s: %q", resp.Status, text)
	}
	return nil
}

// DecodeLegacyRecord reads the record of a classic workload.
func DecodeLegacyRecord(b []byte) (*LegacyRegistration, error) {
	var r LegacyRegistration
	if err := kbs.UnmarshalStrict(b, &r); err != nil {
		return nil, err
	}
	if r.WorkloadID == "" || r.LaunchMeasurement == "" || r.Passphrase == "" {
		return nil, fmt.Errorf("no workload id, measurement or passphrase in it")
	}
	return &r, nil
}

// ReadLegacyRecord reads the record that BuildClassic wrote.
func ReadLegacyRecord(path string) (*LegacyRegistration, error) {
	b, err := bounded.File(path, maxRecordBytes)
	if err != nil {
		return nil, fmt.Errorf("reading record: %w", err)
	}
	defer clear(b)
	r, err := DecodeLegacyRecord(b)
	if err != nil {
		return nil, fmt.Errorf("reading record %s: %w", path, err)
	}
	return r, nil
}
