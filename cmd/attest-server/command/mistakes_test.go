package command

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mistake is one that operators make, and what they must be told: what is wrong,
// and what to do. Words in capitals after $ are of the scene.
type mistake struct {
	what   string
	args   string
	status int
	cause  string // regular expressions, of standard error
	next   string // empty: nothing but the cause can be said
}

// TestMistakes types mistakes. All must name the cause, 9 of 10 the next step.
func TestMistakes(t *testing.T) {
	s := newScene(t)
	silent, all := 0, append(mistakes(), s.inFiles(t)...)
	for _, m := range all {
		t.Run(m.what, func(t *testing.T) {
			var out, errs bytes.Buffer
			app := program().App()
			app.Writer, app.ErrWriter = &out, &errs
			status := program().Run(t.Context(), app, append([]string{"attest-server"}, strings.Fields(s.words.Replace(m.args))...))
			said := errs.String()
			if status != m.status {
				t.Errorf("status %d, expected %d:\n%s%s", status, m.status, said, out.String())
			}
			if !regexp.MustCompile(`(?m)^attest-server: .*` + m.cause).MatchString(said) {
				t.Errorf("the cause, %q, is not named:\n%s", m.cause, said)
			}
			if m.next == "" {
				silent++
			} else if !regexp.MustCompile(`(?m)^attest-server: hint: .*(` + m.next + `)`).MatchString(said) {
				t.Errorf("the next step, %q, is not named:\n%s", m.next, said)
			}
			for _, bad := range []string{"goroutine", "*errors.", "hunter2"} {
				if strings.Contains(said, bad) {
					t.Errorf("%q in\n%s", bad, said)
				}
			}
		})
	}
	t.Logf("%d mistakes, %d without a next step", len(all), silent)
	if silent*10 > len(all) {
		t.Errorf("%d of %d have no next step", silent, len(all))
	}
}

// scene is a server's directory, $OK, and what else the mistakes name.
type scene struct {
	dir   string
	words *strings.Replacer
}

func newScene(t *testing.T) scene {
	t.Helper()
	ok, _ := initDir(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"taken": "x", "field.json": `{"snpp": {}}`, "half.json": `{"snp":`, "none.age": "hunter2\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() })
	served, _ := initDir(t)
	serve(t, "--data", served)
	return scene{dir, strings.NewReplacer("$OK", ok, "$DIR", dir, "$BUSY", busy.Addr().String(), "$SERVED", served)}
}

// mistakes are those on the command line.
func mistakes() []mistake {
	const serve = "serve --data $OK --listen 127.0.0.1:0 "
	return []mistake{
		{"unknown command", "serv", 2, `unknown command "serv"`, "attest-server serve"},
		{"unknown subcommand, with flags", "token creat --data $OK --role admin", 2, `unknown command "creat"`, "attest-server token create"},
		{"unknown flag", "serve --lisen :1", 2, "lisen", "--listen"},
		{"argument too many", "serve --data $OK now", 2, `unexpected argument "now"`, "serve --help"},
		{"no data directory", "serve --data $DIR/none", 1, "reading master key.*no such file", "--data"},
		{"port taken", "serve --data $OK --listen $BUSY", 1, "address already in use", "another program.*ss -ltnp"},
		{"port of metrics taken", serve + "--metrics-listen $BUSY", 1, "address already in use", "ss -ltnp.*--metrics-listen"},
		{"not this machine's address", "serve --data $OK --listen 192.0.2.1:8443", 1, "cannot assign", "not this machine's"},
		{"no port", "serve --data $OK --listen 127.0.0.1", 2, `listen "127.0.0.1".*HOST:PORT`, ":8443"},
		{"metrics without a port", serve + "--metrics-listen localhost --check-config", 2, `metrics_listen "localhost"`, ":8443"},
		{"second server on a directory", "serve --data $SERVED --listen 127.0.0.1:0", 1, "in use: another server", "PostgreSQL"},
		{"unknown dialect", serve + "--dialect kbs", 2, `dialect "kbs", expected native`, "--help"},
		{"unknown format of the log", serve + "--log-format xml", 2, `"xml": expected text or json`, "--help"},
		{"witness by FTP", serve + "--witness ftp://x", 2, "ftp://x.*expected file:", "--help"},
		{"endorsements nowhere", serve + "--endorsements $DIR/none", 1, "none is not a directory", "check the path"},
		{"certificate without its key", serve + "--tls-cert $OK/server.pem", 2, "tls_cert without tls_key", "--help"},
		{"TLS key nowhere", serve + "--tls-cert $OK/server.pem --tls-key $DIR/none", 1, "reading TLS identity.*no such file", "check the path"},
		{"TLS key of another", serve + "--tls-cert $OK/server.pem --tls-key $OK/ca.key", 1, "does not match", "leaf first.*certs renew"},
		{"TLS files swapped", serve + "--tls-cert $OK/server.key --tls-key $OK/server.pem", 1, "did find a private key", "server.key is to hold the chain"},
		{"configuration nowhere", "serve --config $DIR/none.toml", 1, "none.toml: no such file", "check the path"},
		{"init again", "init --data $OK", 1, "is not empty", "nothing is overwritten.*serve"},
		{"init too deep", "init --data $DIR/a/b", 1, "creating data directory.*no such file", "check the path"},
		{"init: token file is there", "init --data $DIR/n --token-out $DIR/taken", 1, "taken: file exists", "no file is overwritten"},
		{"init: URL for a name", "init --data $DIR/n --name https://keys.example.com", 2, "expected a DNS name", "leave out scheme"},
		{"token without role", "token create --data $OK", 2, "needs --role", "token create --help"},
		{"token of an unknown role", "token create --data $OK --role boss", 2, `"boss": expected admin`, "--help"},
		{"token of a tenant that is not there", "token create --data $OK --role publisher --tenant acme", 1, "tenant", "tenant set acme"},
		{"token's life without a unit", "token create --data $OK --role admin --expires 30", 2, `"30"`, "--help"},
		{"revoking nothing", "token revoke --data $OK", 2, "expected ID", "--help"},
		{"revoking a token that is not there", "token revoke --data $OK 012345678901", 1, "012345678901: not found", "token ls"},
		{"tenant's name", "tenant set --data $OK Acme", 1, `"Acme": expected up to 32`, "tenant set acme"},
		{"removing a tenant that is not there", "tenant rm --data $OK acme", 1, "acme: not found", "tenant ls"},
		{"policy nowhere", "policy check $DIR/none.json", 1, "none.json: no such file", "check the path"},
		{"policy with an unknown rule", "policy check $DIR/field.json", 1, `unknown field "snpp"`, "verification.md"},
		{"half a policy", "policy check $DIR/half.json", 1, "half.json.*EOF", "a policy is JSON"},
		{"field that is not there", "machines --data $OK --format {{.Chip}}", 2, "no field Chip", "fields are"},
		{"backup for nobody", "backup --data $OK", 2, "needs --recipient", "--help"},
		{"backup for no recipient", "backup --data $OK --recipient age1x", 2, `"age1x"`, "age-keygen"},
		{"identity that is none", "restore --data $DIR/r --identity $DIR/none.age $DIR/taken", 1, "reading identities", "AGE-SECRET-KEY-1"},
		{"rotating no key", "master-key rotate --data $DIR/none", 1, "reading master key", "where `init` put it"},
		{"rewrapping without transit", "master-key rewrap --data $OK", 2, "has no .transit.", "--help"},
		{"audit of nothing", "audit verify --data $DIR/none", 1, "store.db: no such file", "check the path"},
		{"archive to nowhere", "audit archive --data $OK", 2, "needs --output", "--help"},
		{"archive over a file", "audit archive --data $OK --output $DIR/taken", 1, "taken", ""},
		{"witnesses of nobody", "audit introduce --data $OK", 2, "no witness.*--config", "--help"},
		{"witness of no log", "witness --data $DIR/w --name w --log x", 2, `key "x", expected NAME`, "--help"},
		{"renewing without a CA", "certs renew --data $DIR/none", 1, "reading CA", "where ca.key is kept"},
		{"moving nowhere", "move --data $OK", 2, "--to URL", "--help"},
		{"pin that is none", "move --data $OK --to https://keys.example.com --pin zz", 2, `"zz": expected the SHA-256`, "--help"},
	}
}

// inFiles are mistakes in files: each is one of serve's configuration, or of a
// copy of the data directory.
func (s scene) inFiles(t *testing.T) (all []mistake) {
	t.Helper()
	ok := s.words.Replace("$OK")
	for i, m := range []mistake{
		{"unknown field", `lisen = ":1"`, 1, `unknown field "lisen"`, "did you mean listen"},
		{"unknown field of a section", "[transit]\nadress = \"x\"", 1, `unknown field "transit.adress"`, "did you mean transit.address"},
		{"unknown field like none", "colour = 1", 1, `unknown field "colour"`, "attest-server.toml"},
		{"unknown section", "[polcy]", 1, `unknown field "polcy"`, "did you mean policy"},
		{"no TOML", "listen = :8443", 1, "line 2", "within quotes"},
		{"duration without unit", `session_life = "60"`, 1, "invalid duration", "unit"},
		{"number for a duration", "session_life = 60", 2, "session_life 60ns", "unit"},
		{"text for a number", `max_requests = "many"`, 1, "line 2.*max_requests", "another type"},
		{"out of range", "max_body_bytes = 5", 2, "max_body_bytes 5, expected", "correct .*toml"},
		{"address for a network", `address_exempt = ["10.0.0.1"]`, 1, "10.0.0.1", "10.0.0.1/32|192.0.2.7/32"},
		{"another database", `database = "mysql://x"`, 1, "cannot parse", "postgres://"},
		{"password in the database's URL", `database = "postgres://u:hunter2@db/x"`, 1, "holds a password.*passfile", "correct"},
		{"database away", `database = "postgres://u@127.0.0.1:1/x"`, 1, "does not answer", "PostgreSQL runs"},
		{"role of a certificate", "client_ca = \"" + ok + "/ca.pem\"\nclients = [{subject = \"CN=x\", role = \"boss\"}]", 1, `role "boss", expected admin`, "correct"},
		{"certificate of a tenant that is not there", "client_ca = \"" + ok + "/ca.pem\"\nclients = [{subject = \"CN=x\", role = \"admin\", tenant = \"acme\"}]", 1, "tenant acme", "tenant set acme"},
		{"transit without TLS", "[transit]\naddress = \"http://vault\"\nkey = \"k\"", 1, `expected https`, "correct"},
		{"policy that refuses nothing", "[policy]\n", 1, "would refuse nothing", "correct"},
		{"policy that is past", "[policy]\nnot_after = 2020-01-01T00:00:00Z", 1, "is past", "correct"},
		{"product that is none", "[policy.snp]\nforbid_products = [\"Mailand\"]", 1, `"Mailand", expected one of Milan`, "correct"},
		{"unknown rule", "[policy.snp]\nminimum_svn = 2", 1, "minimum_svn", "correct"},
	} {
		path := filepath.Join(s.dir, string(rune('a'+i))+".toml")
		if err := os.WriteFile(path, []byte("data = \""+ok+"\"\n"+m.args), 0o600); err != nil {
			t.Fatal(err)
		}
		m.args = "serve --config " + path + " --check-config"
		all = append(all, m)
	}
	return append(all, s.inData(t)...)
}

// inData are mistakes with what lies in the data directory.
func (s scene) inData(t *testing.T) (all []mistake) {
	t.Helper()
	other, _ := initDir(t)
	for name, x := range map[string]struct {
		spoil func(dir string) error
		want  mistake
	}{
		"master key for everybody": {func(dir string) error { return os.Chmod(dir+"/master-key", 0o644) }, mistake{status: 1, cause: "has mode 0644, expected 0600: run chmod"}},
		"master key of another":    {func(dir string) error { return copyFile(other+"/master-key", dir+"/master-key") }, mistake{status: 1, cause: "does not belong", next: "key of its own"}},
		"master key cut":           {func(dir string) error { return os.Truncate(dir+"/master-key", 5) }, mistake{status: 1, cause: "neither 32 bytes", next: ""}},
		"store of something else":  {func(dir string) error { return os.WriteFile(dir+"/store.db", []byte("hunter2"), 0o600) }, mistake{status: 1, cause: "is damaged.*restore the last backup"}},
		"store gone":               {func(dir string) error { return os.Remove(dir + "/store.db") }, mistake{status: 1, cause: "store.db: no such file", next: "check the path"}},
		"no certificate":           {func(dir string) error { return os.WriteFile(dir+"/server.pem", []byte("x"), 0o600) }, mistake{status: 1, cause: "reading TLS identity", next: "certs renew"}},
	} {
		dir, _ := initDir(t)
		if err := x.spoil(dir); err != nil {
			t.Fatal(err)
		}
		x.want.what, x.want.args = name, "serve --data "+dir+" --check-config"
		all = append(all, x.want)
	}
	return all
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	return errors.Join(err, os.WriteFile(to, b, 0o600))
}

// TestKeyForEverybody: the operator is told of a TLS key that everybody can read.
// It is served: a site that has lived with it is not to be down after an upgrade.
func TestKeyForEverybody(t *testing.T) {
	dir, _ := initDir(t)
	if err := os.Chmod(filepath.Join(dir, serverKeyName), 0o644); err != nil {
		t.Fatal(err)
	}
	_, said, err := run(t.Context(), "serve", "--data", dir, "--check-config")
	if err != nil || !strings.Contains(said, "can be read by everybody") {
		t.Errorf("%v: %s", err, said)
	}
}
