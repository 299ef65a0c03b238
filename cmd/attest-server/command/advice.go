package command

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"

	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// inFile sends whoever has err to the configuration in path, if there is one, and
// unless err knows better.
func inFile(path string, err error) error {
	if err == nil || path == "" || hint.Of(err) != "" {
		return err
	}
	return hint.With(err, "correct %s: attest-server.toml(5) has every field, with its default; `attest-server serve --config %[1]s --check-config` tries it", path)
}

// notTOML is what is wrong with a configuration that cannot be read as one.
func notTOML(path string, err error) error {
	said := err.Error()
	err = fmt.Errorf("reading configuration %s: %w", path, err)
	switch {
	case strings.Contains(said, "invalid duration"):
		return hint.With(err, `a duration has a unit, within quotes: "90s", "5m", "1h30m"`)
	case strings.Contains(said, "ParsePrefix"):
		return hint.With(err, `a network has a length: one address is "192.0.2.7/32" or "2001:db8::7/128"`)
	case strings.Contains(said, "incompatible types"):
		return hint.With(err, "it is of another type: attest-server.toml(5) shows a value of each field")
	}
	return hint.With(err, `the file is TOML: NAME = VALUE, texts within quotes (listen = ":8443"), sections such as [policy] last`)
}

// unknownField refuses a field of config's kind, and says which may have been meant.
func unknownField(config reflect.Type, path string, key toml.Key) error {
	err := fmt.Errorf("reading configuration %s: unknown field %q", path, key.String())
	at, names := config, []string(nil)
	for _, part := range key[:len(key)-1] {
		at = fieldType(at, part)
	}
	for i := range numField(at) {
		if tag := at.Field(i).Tag.Get("toml"); tag != "" {
			names = append(names, tag)
		}
	}
	if near := face.Nearest(key[len(key)-1], names); near != "" {
		return hint.With(err, "did you mean %s? attest-server.toml(5) has every field", strings.Join(append(key[:len(key)-1:len(key)-1], near), "."))
	}
	return inFile(path, err)
}

func numField(t reflect.Type) int {
	if t == nil || t.Kind() != reflect.Struct {
		return 0
	}
	return t.NumField()
}

// fieldType is the type of t's field, or of the elements of a list there; nil if
// there is none.
func fieldType(t reflect.Type, name string) reflect.Type {
	for i := range numField(t) {
		if f := t.Field(i); f.Tag.Get("toml") == name {
			if f.Type.Kind() == reflect.Slice {
				return f.Type.Elem()
			}
			return f.Type
		}
	}
	return nil
}

// badAddress says whether address is something, and not HOST:PORT.
func badAddress(address string) bool {
	_, _, err := net.SplitHostPort(address)
	return address != "" && err != nil
}

// advise adds to what kept a server from starting what to do about it.
func advise(path, postgres string, err error) error {
	switch {
	case err == nil || hint.Of(err) != "":
		return err
	case errors.Is(err, store.ErrWrongMasterKey):
		return hint.With(err, "each store has a key of its own: name the directory of both with --data, or bring the key that was made or restored with this store; `init` makes another pair")
	case errors.Is(err, database.ErrUnavailable) && postgres != "":
		return hint.With(err, "see that PostgreSQL runs at that address, and takes this user from here: psql %q", postgres)
	case strings.Contains(err.Error(), "database: cannot parse"):
		return hint.With(err, "database is PostgreSQL's: postgres://USER@HOST/DATABASE?sslmode=verify-full; leave it out for SQLite")
	}
	return inFile(path, err)
}

// notListening is why nothing listens at address, with what to do.
func notListening(flag, address string, err error) error {
	var unknown *net.DNSError
	next := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		next = "another program listens there: `ss -ltnp` names it; end it, or choose another port with " + flag
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		next = "that address is not this machine's: `ip address` lists those that are; :PORT is all of them"
	case errors.Is(err, syscall.EACCES):
		next = "ports below 1024 are root's: choose another, or give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE"
	case errors.As(err, &unknown):
		next = "use an address of this machine, or :PORT for all of them"
	}
	return hint.With(fmt.Errorf("listening on %s: %w", cmp.Or(address, "no address"), err), "%s", next)
}
