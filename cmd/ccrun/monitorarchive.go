package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// archivedLog is a server's audit log whose first entries are in archives. Whoever
// reads it checks that all of it is one chain, and that the tree is the one signed.
type archivedLog struct {
	auditSource
	archives []openArchive // in the order of their entries
}

type openArchive struct {
	*kbs.ArchiveReader
	file *os.File
}

func withArchives(log auditSource, paths []string) (*archivedLog, error) {
	a := &archivedLog{auditSource: log}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("reading archive: %w", err), a.close())
		}
		r, err := kbs.NewArchiveReader(f)
		a.archives = append(a.archives, openArchive{r, f})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("reading archive %s: %w", path, err), a.close())
		}
	}
	slices.SortFunc(a.archives, func(x, y openArchive) int { return int(x.After - y.After) })
	return a, nil
}

func (a *archivedLog) close() (err error) {
	for _, x := range a.archives {
		err = errors.Join(err, x.file.Close())
	}
	a.archives = nil
	return err
}

// Audit is a page after the given entry, which only grows from call to call.
func (a *archivedLog) Audit(ctx context.Context, after int64) (*kbs.AuditPage, error) {
	for len(a.archives) > 0 {
		page, err := a.archives[0].page(after)
		if err != nil || len(page.Entries) > 0 {
			return page, err
		}
		if err := a.archives[0].file.Close(); err != nil {
			return nil, err
		}
		a.archives = a.archives[1:]
	}
	return a.auditSource.Audit(ctx, after)
}

// page is some entries after the given one; none at the archive's end.
func (x openArchive) page(after int64) (*kbs.AuditPage, error) {
	page := new(kbs.AuditPage)
	for len(page.Entries) < 1000 {
		e, err := x.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading archive %s: %w", x.file.Name(), err)
		}
		if e.Sequence > after {
			page.Entries = append(page.Entries, e)
		}
	}
	return page, nil
}
