package command

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
)

const shipped = "../../../packaging/systemd"

// TestShippedConfig: the documented file is accepted, names every field, and
// what it shows as default is what flags default to.
func TestShippedConfig(t *testing.T) {
	path := filepath.Join(shipped, "attest-server.toml")
	var cfg Config
	if err := cfg.read(path); err != nil {
		t.Fatal(err)
	}
	if err := cfg.check(); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		name := f.Tag.Get("toml")
		if !f.IsExported() {
			continue // not of the file
		}
		if f.Type.Kind() == reflect.Struct {
			for _, sub := range reflect.VisibleFields(f.Type) {
				if !regexp.MustCompile(`(?ms)^#?\[` + name + `\]$.*^#?` + sub.Tag.Get("toml") + ` = `).Match(b) {
					t.Errorf("field %s of [%s] is not documented", sub.Tag.Get("toml"), name)
				}
			}
			continue
		}
		if table := regexp.MustCompile(`(?m)^#\[\[` + name + `\]\]$`); f.Type.Kind() == reflect.Slice && table.Match(b) {
			for _, sub := range reflect.VisibleFields(f.Type.Elem()) {
				if !regexp.MustCompile(`(?ms)^#\[\[` + name + `\]\]$.*^#` + sub.Tag.Get("toml") + ` = `).Match(b) {
					t.Errorf("field %s of [[%s]] is not documented", sub.Tag.Get("toml"), name)
				}
			}
			continue
		}
		if name == "policy" {
			documentedPolicy(t, string(b))
			continue
		}
		if !regexp.MustCompile(`(?m)^#?` + name + ` = `).Match(b) {
			t.Errorf("field %s is not documented", name)
		}
	}
	for _, f := range program().serveCommand().Flags {
		if s, ok := f.(interface{ GetDefaultText() string }); ok && f.Names()[0] == "listen" && !strings.Contains(s.GetDefaultText(), cfg.Listen) {
			t.Errorf("listen = %q, the flag's default is %s", cfg.Listen, s.GetDefaultText())
		}
	}
}

// TestUnitBoundsMemory: the collector's limit is well below the kernel's, and
// leaves room for all the bodies that the configuration allows, four times each.
func TestUnitBoundsMemory(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(shipped, "attest-server.service"))
	if err != nil {
		t.Fatal(err)
	}
	soft := regexp.MustCompile(`(?m)^Environment=GOMEMLIMIT=(\d+)MiB$`).FindSubmatch(b)
	hard := regexp.MustCompile(`(?m)^MemoryMax=(\d+)G$`).FindSubmatch(b)
	if soft == nil || hard == nil {
		t.Fatal("the unit sets not both, GOMEMLIMIT and MemoryMax")
	}
	softMiB, err1 := strconv.Atoi(string(soft[1]))
	hardGiB, err2 := strconv.Atoi(string(hard[1]))
	var cfg Config
	if err := errors.Join(err1, err2, cfg.read(filepath.Join(shipped, "attest-server.toml"))); err != nil {
		t.Fatal(err)
	}
	if softMiB > hardGiB<<10*3/4 || int64(softMiB)<<20 < 4*cfg.MaxBodyBytes+heapFloor {
		t.Errorf("GOMEMLIMIT %d MiB, MemoryMax %d GiB, bodies of %d bytes", softMiB, hardGiB, cfg.MaxBodyBytes)
	}
	shown := answer.RateLimits{BodyBytes: cfg.MaxBodyBytes, Requests: cfg.MaxRequests, Connections: cfg.MaxConnections, AddressConnections: cfg.MaxAddressConnections}
	defaults := answer.RateLimits{BodyBytes: answer.DefaultBodyBytes, Requests: answer.DefaultRequests, Connections: answer.DefaultConnections, AddressConnections: answer.DefaultAddressConnections}
	if !reflect.DeepEqual(shown, defaults) {
		t.Errorf("the file shows %+v as defaults, they are %+v", shown, defaults)
	}
}

func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("systemd-analyze is not installed")
	}
	b, err := os.ReadFile(filepath.Join(shipped, "attest-server.service"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable() // verify wants the program to exist
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "attest-server.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(b), "/usr/local/bin/attest-server", self)), 0o644); err != nil {
		t.Fatal(err)
	}
	verify := func(what string) {
		t.Helper()
		if out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify, %s: %v\n%s", what, err, out)
		}
	}
	verify("as shipped")
	if out, err := exec.Command(analyze, "security", "--offline=yes", "--threshold=15", unit).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: worse than 1.5: %v\n%s", err, out)
	}
	dropIns := filepath.Join(shipped, "attest-server.service.d")
	entries, err := os.ReadDir(dropIns)
	if err != nil || len(entries) < 2 {
		t.Fatalf("drop-ins: %v, %v", entries, err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dropIns, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		// Either takes the place of the file with the key in clear.
		if !strings.Contains(string(b), "\nLoadCredential=\n") {
			t.Errorf("%s leaves LoadCredential= as it is", e.Name())
		}
		if err := os.MkdirAll(unit+".d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(unit+".d", "x.conf"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		verify(e.Name())
	}
}

// documentedPolicy: the file's [policy], its comment signs taken away, is one
// for a server, and has every field that such a one can have.
func documentedPolicy(t *testing.T, text string) {
	t.Helper()
	_, text, _ = strings.Cut(text, "\n#[policy]\n")
	var shown []string
	for line := range strings.Lines("#[policy]\n" + text) {
		if code, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(code, " ") {
			shown = append(shown, code)
		}
	}
	path := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(path, []byte(strings.Join(shown, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg Config
	if err := cfg.read(path); err != nil {
		t.Fatal(err)
	}
	p, err := cfg.policy()
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckDefaults(*p, time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Error(err)
	}
	own := []string{"vmpl", "host_data", "rtmrs", "mr_config_id", "mr_owner", "mr_owner_config", "vtpm"}
	for section, typ := range map[string]reflect.Type{"": reflect.TypeFor[kbs.Policy](), "snp": reflect.TypeFor[kbs.SNPRules](), "tdx": reflect.TypeFor[kbs.TDXRules]()} {
		table := cfg.Policy
		if section != "" {
			table = table[section].(map[string]any)
		}
		for _, f := range reflect.VisibleFields(typ) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if _, ok := table[name]; ok == slices.Contains(own, name) {
				t.Errorf("[policy.%s] %s: not documented, or no server's to set", section, name)
			}
		}
	}
}

// TestUnitWaitsForTheTime: a server that starts before its machine knows the time
// has guests wait for as long as that takes, and owners' tools refuse it.
func TestUnitWaitsForTheTime(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(shipped, "attest-server.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"After", "Wants"} {
		if !regexp.MustCompile(`(?m)^` + field + `=.*\btime-sync\.target\b`).Match(b) {
			t.Errorf("%s= does not name time-sync.target", field)
		}
	}
}
