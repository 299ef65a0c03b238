// Package rpmdb lists the packages in an RPM database: SQLite (Fedora, RHEL
// 9), ndb (SUSE) or Berkeley DB (RHEL 8 and before). It reads, from an
// io.ReaderAt, and never writes.
//
// The file is what somebody put into an image, so every offset is checked, no
// page is followed twice and nothing is allocated that the file could not hold.
// Two libraries that read the same do not hold that:
//
//   - github.com/knqyf263/go-rpmdb opens a path, for which an image's database
//     would have to lie on a disk in the clear. It reads in goroutines of its
//     own, where nobody can recover from a panic, slices by offsets it has not
//     checked and follows page chains that may be rings.
//   - modernc.org/sqlite (v1.60) reads the schema before any query. Of a schema
//     whose pages share one child each, as in TestDamaged, it reads the same row
//     500^17 times, and the end of the context does not stop it: a file of 90 kB
//     keeps a build for ever. Tables of many columns make it take six times the
//     file's size in memory. It would also add 3.7 MB to ccrun.
package rpmdb

import (
	"bytes"
	"errors"
	"io"
)

// ErrUnknownFormat is a file that is none of the three.
var ErrUnknownFormat = errors.New("not an RPM database of a known format")

// Read calls visit for each package, in the file's order. An error of visit
// ends it.
func Read(r io.ReaderAt, size int64, visit func(Package) error) error {
	f := &file{r: r, size: size, left: 2 * size}
	head, err := f.bytes(0, min(size, 100))
	if err != nil {
		return err
	}
	each := func(blob []byte) error {
		p, err := parseHeader(blob)
		if err != nil {
			return err
		}
		if p.Name == "gpg-pubkey" { // a key, in a package's clothes
			return nil
		}
		return visit(p)
	}
	switch {
	case bytes.HasPrefix(head, []byte("SQLite format 3\x00")) && len(head) == 100:
		return f.sqlite(head, each)
	case bytes.HasPrefix(head, []byte("RpmP")) && len(head) >= 32:
		return f.ndb(head, each)
	case len(head) >= 72 && bdbOrder(head) != nil:
		return f.bdb(head, each)
	}
	return ErrUnknownFormat
}
