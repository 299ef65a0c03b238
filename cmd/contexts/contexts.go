// Package contexts keeps what a user once told ccrun about attestation
// servers: for each, its URL, the certificates to trust it by, and the token.
// A context is a directory of the user's, like podman's and kubectl's are
// entries of a file: tokens stay files of their own, with mode 0600.
package contexts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// ErrNone reports that no context is in use.
var ErrNone = errors.New("no context is in use")

// Context is one attestation server as its user reaches it.
type Context struct {
	Name string `json:"name"`
	// Server is its URL.
	Server string `json:"server"`
	// CAFile is a PEM file; empty for the system's authorities.
	CAFile string `json:"ca_file,omitempty"`
	// TokenFile is a file of mode 0600.
	TokenFile string `json:"token_file"`
	// Current says that commands without --server use it.
	Current bool `json:"current"`
}

// Store is the contexts in a directory of the user's.
type Store struct{ dir string }

// User is the calling user's store: ccrun/contexts below XDG_CONFIG_HOME or
// ~/.config. It need not exist.
func User() (Store, error) {
	base, err := os.UserConfigDir()
	if err != nil {
		return Store{}, fmt.Errorf("looking for the user's configuration: %w", err)
	}
	return Store{filepath.Join(base, "ccrun", "contexts")}, nil
}

// What a context's directory holds, and beside all of them the name of the one
// in use.
const (
	serverFile  = "server.json"
	caFile      = "ca.pem"
	tokenFile   = "token"
	currentFile = "current"
	unfinished  = ".new-" // begins the name of a context's directory that is being made
)

// maxFile bounds each file, in bytes.
const maxFile = 1 << 20

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func checkName(name string) error {
	if !nameForm.MatchString(name) || name == currentFile {
		return hint.Usagef("context %q: expected letters, digits, dots, dashes and underscores, at most 63, and not %q", name, currentFile)
	}
	return nil
}

type server struct {
	URL string `json:"url"`
	// CA says that there is a file of certificates: without it nothing is
	// trusted, least of all the system's authorities.
	CA bool `json:"ca"`
}

// Put makes the context name, in place of what has that name, and the one in
// use. ca may be empty. Nobody but the user can read what it writes.
func (s Store) Put(name, url string, ca []byte, token secret.Bytes) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("making the directory of contexts: %w", err)
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	next, err := os.MkdirTemp(s.dir, unfinished)
	if err != nil {
		return fmt.Errorf("making a context: %w", err)
	}
	defer os.RemoveAll(next)
	j, err := json.Marshal(server{url, len(ca) > 0})
	if err != nil {
		return err
	}
	files := map[string][]byte{serverFile: j, tokenFile: append(bytes.Clone(token.Reveal()), '\n')}
	defer clear(files[tokenFile])
	if len(ca) > 0 {
		files[caFile] = ca
	}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(next, file), content, 0o600); err != nil {
			return fmt.Errorf("writing a context: %w", err)
		}
	}
	// A directory cannot be exchanged for another in one step everywhere: in
	// between there is none, and commands say so.
	if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
		return fmt.Errorf("replacing context %s: %w", name, err)
	}
	if err := os.Rename(next, filepath.Join(s.dir, name)); err != nil {
		return fmt.Errorf("writing context %s: %w", name, err)
	}
	return s.Use(name)
}

// lock keeps others from putting contexts, and removes what one that was killed
// has left: it may hold a token.
func (s Store) lock() (unlock func(), err error) {
	dir, err := os.Open(s.dir)
	if err == nil {
		if err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
			dir.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("locking the directory of contexts: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(s.dir, unfinished+"*"))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("removing what a killed login has left: %w", err)
	}
	return func() { dir.Close() }, nil
}

// Use makes name the context in use.
func (s Store) Use(name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	next := filepath.Join(s.dir, ".current")
	if err := os.WriteFile(next, []byte(name+"\n"), 0o600); err != nil {
		return fmt.Errorf("choosing context %s: %w", name, err)
	}
	if err := os.Rename(next, filepath.Join(s.dir, currentFile)); err != nil {
		return fmt.Errorf("choosing context %s: %w", name, err)
	}
	return nil
}

// Get is the context name.
func (s Store) Get(name string) (*Context, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, name)
	b, err := bounded.File(filepath.Join(dir, serverFile), maxFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, hint.With(fmt.Errorf("no context %s", name), "`ccrun context ls` lists them; `ccrun login URL` makes one")
	}
	if err != nil {
		return nil, fmt.Errorf("reading context %s: %w", name, err)
	}
	var v server
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || v.URL == "" {
		return nil, hint.With(fmt.Errorf("reading context %s: %s names no server", name, filepath.Join(dir, serverFile)), "`ccrun login` makes it again")
	}
	c := &Context{Name: name, Server: v.URL, TokenFile: filepath.Join(dir, tokenFile), Current: name == s.current()}
	if v.CA {
		c.CAFile = filepath.Join(dir, caFile)
	}
	return c, nil
}

// current is the name of the context in use, or "".
func (s Store) current() string {
	b, err := bounded.File(filepath.Join(s.dir, currentFile), maxFile)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// Current is the context in use, or ErrNone.
func (s Store) Current() (*Context, error) {
	name := s.current()
	if name == "" {
		return nil, ErrNone
	}
	return s.Get(name)
}

// List is all contexts by name.
func (s Store) List() ([]Context, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading contexts: %w", err)
	}
	var list []Context
	for _, e := range entries {
		if !e.IsDir() || !nameForm.MatchString(e.Name()) {
			continue
		}
		c, err := s.Get(e.Name())
		if err != nil {
			return nil, err
		}
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Context) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return list, nil
}

// Remove forgets the context name and its token, which stays good at the
// server.
func (s Store) Remove(name string) error {
	c, err := s.Get(name)
	if err != nil {
		return err
	}
	if c.Current {
		if err := os.Remove(filepath.Join(s.dir, currentFile)); err != nil {
			return fmt.Errorf("removing context %s: %w", name, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
		return fmt.Errorf("removing context %s: %w", name, err)
	}
	return nil
}
