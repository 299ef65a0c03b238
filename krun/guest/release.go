package guest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// obtainKey attests to the servers of the identity, in turn, and gets the
// DiskKey from the first that releases it.
func (b *boot) obtainKey(ctx context.Context) error {
	source, err := b.findAttester(ctx)
	if err != nil {
		return fmt.Errorf("finding the TEE's report interface: %w", err)
	}
	if c, ok := source.(io.Closer); ok {
		defer func() { _ = c.Close() }()
	}
	client := &kbs.Client{URLs: b.identity.Servers.URLs, PinnedKeys: b.identity.Servers.PinnedKeys}
	b.diskKey, err = client.Release(ctx, kbs.ReleaseRequest{
		WorkloadID:     b.identity.WorkloadID,
		TEE:            b.identity.TEE,
		IdentityDigest: b.identityDigest,
		FooterDigest:   b.disk.footerDigest,
		Attest: func(ctx context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
			e, err := source.attest(ctx, rd)
			if err == nil {
				b.console.timing("got evidence")
			}
			return e, err
		},
	})
	if err != nil {
		return err
	}
	if b.diskKey.Len() == 0 {
		return errors.New("the server released an empty disk key")
	}
	return nil
}
