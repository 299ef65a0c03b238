package command

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/urfave/cli/v2"

	attestserver "github.com/ccrun/ccrun/attest-server"
	attestadmin "github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// Config is serve's configuration file, TOML. Unknown fields are refused.
// Every field may be left out; flags of the same name take precedence.
type Config struct {
	// Listen is HOST:PORT to listen on; an empty HOST is every address.
	// Default ":8443". Not used when systemd passes a socket.
	Listen string `toml:"listen"`
	// Data is the directory that init made. Default "/var/lib/attest-server".
	Data string `toml:"data"`
	// Database is a PostgreSQL database to keep the store in, so that several
	// servers can share it: a URL such as
	// "postgres://attest@db.example.com/attest?sslmode=verify-full", or keywords
	// as libpq has them. Passwords are not allowed here: they are in the file
	// that passfile= or PGPASSFILE names, or the credential database-password.
	// Default: SQLite, the file store.db in Data.
	Database string `toml:"database"`
	// TLSCert and TLSKey are PEM files, both or neither. The certificate file
	// holds the whole chain, leaf first, with the CA that guests pin.
	// Default: server.pem and server.key in Data.
	TLSCert string `toml:"tls_cert"`
	TLSKey  string `toml:"tls_key"`
	// Dialects are the protocols spoken to guests: native, trustee (CoCo's
	// KBS protocol), legacy (libkrun's old C client and buildah mkcw: weaker
	// identities). Default ["native", "trustee"].
	Dialects []string `toml:"dialects"`
	// Endorsements is a directory of vendor certificates, CRLs and TDX
	// collateral, such as `ccrun certs` keeps, read at start and on SIGHUP.
	// Default: none.
	Endorsements string `toml:"endorsements"`
	// EndorsementsOnline has what is missing there fetched from AMD and Intel,
	// or from the mirrors below, and renewed. It tells them which machines
	// attest. What was fetched lies in endorsements in Data. Default false.
	EndorsementsOnline bool `toml:"endorsements_online"`
	// KDSURL and PCSURL are a mirror of AMD's KDS and a PCCS, e.g.
	// "https://pccs.example.com:8081". Default: AMD's and Intel's own.
	KDSURL string `toml:"kds_url"`
	PCSURL string `toml:"pcs_url"`
	// PCSUpdate is which TCB data of Intel's is fetched: early, of the day on
	// which an advisory is published, or standard, of when firmware had time to
	// reach machines. Default standard.
	PCSUpdate string `toml:"pcs_update"`
	// MirrorCA is a PEM file to trust for TLS with those. Default: the
	// system's authorities.
	MirrorCA string `toml:"mirror_ca"`
	// RequireCRL refuses SNP Evidence for which no current CRL is at hand.
	// Default false.
	RequireCRL bool `toml:"require_crl"`
	// SessionLife is how long a nonce is good for, e.g. "60s", 1 s to 1 h.
	// Default "60s".
	SessionLife time.Duration `toml:"session_life"`
	// ReleasesPerSession is how often a session may fetch its key, 1 to 100.
	// Default 3: an answer may be lost on the way.
	ReleasesPerSession int `toml:"releases_per_session"`
	// MaxSessions bounds granted sessions in memory, about 2 KiB each, and 16
	// times as many denied ones. Default 65536.
	MaxSessions int `toml:"max_sessions"`
	// SessionRecords is how many outcomes are kept for `ccrun explain`, and as
	// many again of forged Evidence. Default 10000.
	SessionRecords int `toml:"session_records"`
	// MetricsListen is HOST:PORT for Prometheus, plain HTTP, path /metrics; an
	// empty HOST is loopback. Default: none.
	MetricsListen string `toml:"metrics_listen"`
	// AddressRate and AddressBurst limit one IPv4 address or IPv6 /64: requests
	// and connections a second on average, and at once. Default 100 and 1000; a
	// negative rate is no limit.
	AddressRate  float64 `toml:"address_rate"`
	AddressBurst int     `toml:"address_burst"`
	// AddressExempt is networks that no limit by address concerns, e.g.
	// ["192.0.2.7/32"] for a proxy. Default: loopback; [] is none.
	AddressExempt []netip.Prefix `toml:"address_exempt"`
	// TokenRate and TokenBurst limit one owner's token, likewise. Default 500
	// and 5000.
	TokenRate  float64 `toml:"token_rate"`
	TokenBurst int     `toml:"token_burst"`
	// MaxConnections bounds open connections, and MaxAddressConnections those of
	// one address. Where there are more, idle ones are closed. Default 4096, or
	// what the process may open less 64, and 512.
	MaxConnections        int `toml:"max_connections"`
	MaxAddressConnections int `toml:"max_address_connections"`
	// MaxRequests bounds requests under way. Default 2048.
	MaxRequests int `toml:"max_requests"`
	// MaxBodyBytes bounds the bodies of requests that are being read or
	// answered, 1 MiB to 1 GiB; working on one takes about four times its size.
	// One address gets a quarter. Default 32 MiB.
	MaxBodyBytes int64 `toml:"max_body_bytes"`
	// WebPage serves the read-only page for auditors at /. Default true.
	WebPage *bool `toml:"web_page"`
	// LogLevel is debug, info, warn or error. Default "info".
	LogLevel string `toml:"log_level"`
	// LogFormat is text or json. Default "text".
	LogFormat string `toml:"log_format"`
	// ClientCA is a PEM file of CAs whose client certificates are accepted in
	// place of tokens, for the subjects in Clients. Default: none are.
	ClientCA string `toml:"client_ca"`
	// Clients says what holders of a client certificate may do: subject as in
	// RFC 2253 ("CN=ci,O=ACME"), role (admin, publisher, auditor), and tenant,
	// empty for the operator's. Needs ClientCA.
	Clients []ClientConfig `toml:"clients"`
	// Transit is the transit engine of Vault or OpenBao that wraps the
	// MasterKey. Default: none; the key is then a credential or a file.
	Transit TransitConfig `toml:"transit"`
	// Policy is what is asked of every workload's Evidence beside its own rules
	// and its tenant's, the strictest of each: sections snp and tdx with the
	// fields of a registration's reference_values, cel, not_after. Read again
	// on SIGHUP. Default: nothing.
	// To be without one where there was one takes none = true, and nothing else
	// in the section: a policy that is only missing stays in force.
	// Beside those, advisories names a signed table of firmware advisories to
	// use in place of the one built in, and advisory_key who must have signed
	// it, as `attest-server advisories keygen` printed it: both or neither. No table
	// takes the place of a newer one.
	Policy map[string]any `toml:"policy"`
	// Witness are those who remember the head of the audit log, elsewhere. The
	// server releases nothing while its log is not what each of them has seen.
	// Default: none.
	Witness []WitnessConfig `toml:"witness"`
	// WitnessInterval is how often they are asked, 1 s to 24 h. Default "1m".
	WitnessInterval time.Duration `toml:"witness_interval"`
	// WitnessOptional lets the server start while any of them is out of reach.
	// Default false.
	WitnessOptional bool `toml:"witness_optional"`
	// WitnessListen is HOST:PORT to be a witness of other servers' logs on, under
	// this server's TLS certificate: C2SP tlog-witness. Its key and memory are in
	// witness in Data. Default: none.
	WitnessListen string `toml:"witness_listen"`
	// WitnessName is the name that it signs with, and WitnessLogs the keys of the
	// logs that it witnesses, as `audit key` prints them on their servers.
	WitnessName string   `toml:"witness_name"`
	WitnessLogs []string `toml:"witness_logs"`

	says    bool // the file has at least one field
	inForce store.Configured
	table   *advisory.Table // nil but after loadConfig
}

// ClientConfig is an entry of Clients.
type ClientConfig struct {
	Subject string `toml:"subject"`
	Role    string `toml:"role"`
	Tenant  string `toml:"tenant"`
}

// loadConfig reads the file, if any, lets flags override it and fills in
// defaults.
func loadConfig(c *cli.Context) (Config, error) {
	var cfg Config
	if path := c.String("config"); path != "" {
		if err := cfg.read(path); err != nil {
			return Config{}, err
		}
	}
	for flag, field := range map[string]*string{
		"listen": &cfg.Listen, "data": &cfg.Data, "tls-cert": &cfg.TLSCert, "tls-key": &cfg.TLSKey,
		"log-format": &cfg.LogFormat, "endorsements": &cfg.Endorsements,
		"metrics-listen": &cfg.MetricsListen, "witness-listen": &cfg.WitnessListen,
	} {
		if c.IsSet(flag) || *field == "" {
			*field = c.String(flag)
		}
	}
	cfg.LogLevel = cmp.Or(face.LogLevel(c), cfg.LogLevel, "info")
	if c.IsSet("endorsements-online") {
		cfg.EndorsementsOnline = c.Bool("endorsements-online")
	}
	for _, u := range c.StringSlice("witness") {
		address, key, _ := strings.Cut(u, "#")
		cfg.Witness = append(cfg.Witness, WitnessConfig{URL: address, Key: key})
	}
	if c.IsSet("dialect") || len(cfg.Dialects) == 0 {
		cfg.Dialects = nil
		for _, d := range c.StringSlice("dialect") {
			cfg.Dialects = append(cfg.Dialects, strings.Split(d, ",")...)
		}
	}
	if err := cfg.check(); err != nil {
		return cfg, inFile(c.String("config"), err)
	}
	var err error
	if cfg.table, err = advisoriesOf(c, cfg.Policy, time.Now()); err != nil {
		return cfg, inFile(c.String("config"), err)
	}
	cfg.inForce.Advisories = cfg.table.Mark()
	return cfg, nil
}

func (cfg *Config) read(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	meta, err := toml.Decode(string(b), cfg)
	if err != nil {
		return notTOML(path, err)
	}
	for _, unknown := range meta.Undecoded() {
		if unknown[0] != "policy" { // which policy reads, as strictly
			return unknownField(reflect.TypeFor[Config](), path, unknown)
		}
	}
	cfg.says = len(meta.Keys()) > 0
	if err := cfg.digest(b); err != nil {
		return inFile(path, fmt.Errorf("reading configuration %s: %w", path, err))
	}
	return nil
}

// digest fills in inForce; file is the configuration's text.
func (cfg *Config) digest(file []byte) error {
	p, err := cfg.policy()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(file)
	cfg.inForce = store.Configured{Configuration: "sha256:" + hex.EncodeToString(sum[:]), NoPolicy: cfg.Policy["none"] == true}
	if p == nil {
		return nil
	}
	canonical, err := kbs.Canonical(p)
	if err != nil {
		return fmt.Errorf("[policy]: %w", err)
	}
	cfg.inForce.Policy = "sha384:" + kbs.Sum384(canonical).String()
	return nil
}

func (cfg *Config) check() error {
	switch {
	case (cfg.TLSCert == "") != (cfg.TLSKey == ""):
		return face.Usagef("tls_cert without tls_key, or the other way round: both or neither")
	case !cfg.EndorsementsOnline && (cfg.KDSURL != "" || cfg.PCSURL != "" || cfg.PCSUpdate != "" || cfg.MirrorCA != ""):
		return face.Usagef("kds_url, pcs_url, pcs_update and mirror_ca are for endorsements_online = true alone")
	case cfg.SessionLife != 0 && (cfg.SessionLife < time.Second || cfg.SessionLife > time.Hour):
		return hint.With(face.Usagef("session_life %s, expected 1s to 1h", cfg.SessionLife), `a duration has a unit, within quotes: session_life = "60s"`)
	case cfg.ReleasesPerSession < 0 || cfg.ReleasesPerSession > 100:
		return face.Usagef("releases_per_session %d, expected 1 to 100", cfg.ReleasesPerSession)
	case cfg.MaxSessions < 0 || cfg.MaxSessions > 1<<24:
		return face.Usagef("max_sessions %d, expected 1 to %d", cfg.MaxSessions, 1<<24)
	case cfg.AddressBurst < 0 || cfg.TokenBurst < 0:
		return face.Usagef("address_burst %d, token_burst %d, expected at least 1", cfg.AddressBurst, cfg.TokenBurst)
	case (cfg.ClientCA == "") != (len(cfg.Clients) == 0):
		return face.Usagef("client_ca without clients, or the other way round: both or neither")
	case cfg.MaxConnections < 0 || cfg.MaxAddressConnections < 0 || cfg.MaxRequests < 0:
		return face.Usagef("max_connections %d, max_address_connections %d, max_requests %d, expected at least 1", cfg.MaxConnections, cfg.MaxAddressConnections, cfg.MaxRequests)
	case cfg.MaxBodyBytes != 0 && (cfg.MaxBodyBytes < 1<<20 || cfg.MaxBodyBytes > 1<<30):
		return face.Usagef("max_body_bytes %d, expected %d to %d", cfg.MaxBodyBytes, 1<<20, 1<<30)
	case badAddress(cfg.Listen) || badAddress(cfg.MetricsListen) || badAddress(cfg.WitnessListen):
		return hint.With(face.Usagef("listen %q, metrics_listen %q, witness_listen %q: expected HOST:PORT", cfg.Listen, cfg.MetricsListen, cfg.WitnessListen),
			"an empty HOST is every address, and that of IPv6 is in brackets: :8443, 192.0.2.7:8443, [2001:db8::7]:8443")
	case cfg.SessionRecords < 0:
		return face.Usagef("session_records %d, expected at least 1", cfg.SessionRecords)
	}
	for _, d := range cfg.Dialects {
		if !slices.Contains(session.Dialects(), session.Dialect(d)) {
			return face.Usagef("dialect %q, expected native, trustee or legacy", d)
		}
	}
	if cfg.WitnessInterval != 0 && (cfg.WitnessInterval < time.Second || cfg.WitnessInterval > 24*time.Hour) {
		return face.Usagef("witness_interval %s, expected 1s to 24h", cfg.WitnessInterval)
	}
	if cfg.WitnessListen == "" && len(cfg.WitnessLogs) > 0 || cfg.WitnessListen != "" && (cfg.WitnessName == "" || len(cfg.WitnessLogs) == 0) {
		return face.Usagef("witness_listen, witness_name and witness_logs: all of them or none")
	}
	_, err := openWitnesses(cfg.Witness, cfg.WitnessOptional)
	return err
}

func (cfg *Config) server() attestserver.Config {
	var dialects []session.Dialect
	for _, d := range cfg.Dialects {
		dialects = append(dialects, session.Dialect(d))
	}
	return attestserver.Config{
		Dialects:    dialects,
		SessionLife: cfg.SessionLife, ReleasesPerSession: cfg.ReleasesPerSession, MaxSessions: cfg.MaxSessions,
		Limits: answer.RateLimits{
			PerAddress: answer.Rate{PerSecond: cfg.AddressRate, Burst: cfg.AddressBurst}, Exempt: cfg.AddressExempt,
			PerToken:  answer.Rate{PerSecond: cfg.TokenRate, Burst: cfg.TokenBurst},
			BodyBytes: cfg.MaxBodyBytes, Requests: cfg.MaxRequests,
			Connections: cfg.MaxConnections, AddressConnections: cfg.MaxAddressConnections,
		},
	}
}

func (cfg *Config) clients() []attestadmin.ClientCertificate {
	var clients []attestadmin.ClientCertificate
	for _, x := range cfg.Clients {
		clients = append(clients, attestadmin.ClientCertificate{Subject: x.Subject, Role: store.Role(x.Role), Tenant: x.Tenant})
	}
	return clients
}

// configFlag is for commands that need to know where the store and its master
// key are, and nothing else of serve's configuration.
func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Usage: "TOML `FILE` of serve, for data, database and [transit]; flags take precedence"}
}

// storeConfig is what configFlag and dataFlag say.
func storeConfig(c *cli.Context) (Config, error) {
	var cfg Config
	if path := c.String("config"); path != "" {
		if err := cfg.read(path); err != nil {
			return Config{}, err
		}
	}
	if c.IsSet("data") || cfg.Data == "" {
		cfg.Data = c.String("data")
	}
	return cfg, nil
}

// policy is the section of that name, as policySection has it.
func (cfg *Config) policy() (*kbs.Policy, error) { return policySection(cfg.Policy) }
