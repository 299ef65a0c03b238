package command

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/ccrun/ccrun/attest-server/answer"
)

// configured is a configuration read from text.
func configured(t *testing.T, text string) (cfg Config, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "attest-server.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cfg.read(path); err != nil {
		return cfg, err
	}
	return cfg, cfg.check()
}

// TestLimitsAreConfigured: every limit's field reaches the server.
func TestLimitsAreConfigured(t *testing.T) {
	cfg, err := configured(t, `address_rate = 1.5
address_burst = 2
address_exempt = ["192.0.2.0/24"]
token_rate = 3.5
token_burst = 4
max_connections = 5
max_address_connections = 6
max_requests = 7
max_body_bytes = 8388608
`)
	if err != nil {
		t.Fatal(err)
	}
	want := answer.RateLimits{
		PerAddress: answer.Rate{PerSecond: 1.5, Burst: 2}, PerToken: answer.Rate{PerSecond: 3.5, Burst: 4},
		Exempt:      []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Connections: 5, AddressConnections: 6, Requests: 7, BodyBytes: 8 << 20,
	}
	if got := cfg.server().Limits; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, expected %+v", got, want)
	}
	for _, text := range []string{"max_connections = -1", "max_address_connections = -1", "max_requests = -1", "max_body_bytes = 1048575", "max_body_bytes = 1073741825", "max_body_bytes = -1"} {
		if _, err := configured(t, text); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

// TestConnectionsLeaveFiles: however many connections are asked for, the
// database still gets its files.
func TestConnectionsLeaveFiles(t *testing.T) {
	for _, x := range []struct {
		files      uint64
		most, want int
	}{{1 << 20, 4096, 4096}, {4096 + 64, 4096, 4096}, {4096 + 63, 4096, 4095}, {1024, 4096, 960}, {100, 4096, 36}, {10, 4096, 1}} {
		if got := fewerThan(x.files, x.most); got != x.want {
			t.Errorf("%d of %d connections with %d files, expected %d", got, x.most, x.files, x.want)
		}
	}
	l, err := withinFiles(answer.RateLimits{Connections: 1 << 30})
	if err != nil || l.Connections == 1<<30 || l.Connections < 1 {
		t.Errorf("%d connections, %v", l.Connections, err)
	}
}
