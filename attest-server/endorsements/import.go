package endorsements

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ccrun/ccrun/bounded"
)

// Outcome is what became of one item of an import.
type Outcome struct {
	Name        string       `json:"name"`
	Result      string       `json:"result"` // added, known (or older than what is kept), needless, refused
	Reason      string       `json:"reason,omitempty"`
	Endorsement *Endorsement `json:"endorsement,omitempty"`
}

// Results of an import.
const (
	Added    = "added"
	Known    = "known"
	Needless = "needless" // genuine, as far as that matters, and nobody asks for it
	Refused  = "refused"
)

// Import takes in what lies at from: a file, a directory or a tar archive
// (gzip or not) of DER or PEM certificates and CRLs and of collateral. Each
// item has its Outcome; the error is of reading and writing alone.
func (c *Cache) Import(from string) ([]Outcome, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	var all []Outcome
	add := func(name string, content []byte) error {
		o, err := c.ImportBytes(name, content)
		all = append(all, o...)
		return err
	}
	if info.IsDir() {
		err = walkSmall(os.DirFS(from), add)
		return all, err
	}
	b, err := bounded.File(from, maxBundleSize)
	if errors.Is(err, bounded.ErrTooLarge) {
		return []Outcome{{Name: info.Name(), Result: Refused, Reason: fmt.Sprintf("more than %d bytes", maxBundleSize)}}, nil
	}
	if err == nil {
		err = add(info.Name(), b)
	}
	return all, err
}

// ImportBytes is Import of one file's content.
func (c *Cache) ImportBytes(name string, content []byte) ([]Outcome, error) {
	var all []Outcome
	for _, i := range split(name, content) {
		o := Outcome{Name: i.name, Result: Refused}
		e, added, err := (*Endorsement)(nil), false, i.err
		if why := c.roots.needless(i.content); why != "" {
			all = append(all, Outcome{Name: i.name, Result: Needless, Reason: why})
			continue
		}
		if err == nil {
			e, added, err = c.Add(i.content)
		}
		o.Endorsement = e
		switch {
		case err != nil && e != nil: // it was good: keeping it failed
			return all, err
		case err != nil:
			o.Reason = err.Error()
		case added:
			o.Result = Added
		default:
			o.Result = Known
		}
		all = append(all, o)
	}
	return all, nil
}

// Export writes everything as a tar archive: the same bytes for the same
// content, on any machine and at any time.
func (c *Cache) Export(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, e := range c.List() {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.fileName(), Size: int64(e.Size), Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
		if _, err := t.Write(e.content); err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
	}
	return t.Close()
}
