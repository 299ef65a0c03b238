package command

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/web"
	"github.com/ccrun/ccrun/cmd/face"
)

// fetchedName is the directory in Data of what was fetched.
const fetchedName = "endorsements"

// openSupply reads the operator's Endorsements and, if wanted, makes ready to
// fetch more.
func openSupply(cfg Config) (*endorsements.Supply, error) {
	o := endorsements.SupplyOptions{Dir: cfg.Endorsements, Now: time.Now}
	if cfg.EndorsementsOnline {
		o.CacheDir, o.KDSURL, o.PCSURL, o.Update = inDir(cfg.Data, fetchedName), cfg.KDSURL, cfg.PCSURL, cfg.PCSUpdate
		var err error
		if o.Client, err = vendorClient(cfg.MirrorCA); err != nil {
			return nil, err
		}
	}
	return endorsements.OpenSupply(o)
}

// vendorTimeout bounds one request to a vendor: a guest may wait for it.
const vendorTimeout = 10 * time.Second

func vendorClient(ca string) (*http.Client, error) {
	if ca == "" {
		return endorsements.NewClient(vendorTimeout, nil), nil
	}
	roots, err := face.Roots("mirror_ca", ca)
	return endorsements.NewClient(vendorTimeout, roots), err
}

// soonExpired is how long before their end the operator is told. Intel's
// collateral and AMD's CRLs live for some weeks.
const soonExpired = 7 * 24 * time.Hour

// renewed is called after each round of renewal in the background.
func renewed(log *slog.Logger, s *endorsements.Supply, err error) {
	if err != nil {
		log.Warn("renewing endorsements: what is there is used to its end", "error", err)
	}
	warnOfEndorsements(log, s)
}

func warnOfEndorsements(log *slog.Logger, s *endorsements.Supply) {
	now := time.Now()
	for _, e := range s.Expiring(now, soonExpired) {
		text := "endorsement expires soon: renew it with `ccrun certs fetch`, or see why endorsements_online does not"
		if e.Expires.Before(now) {
			text = "endorsement has expired: evidence that needs it is refused"
		}
		log.Warn(text, "kind", e.Kind, "product", e.Product, "subject", e.Subject, "expires", e.Expires)
	}
}

// endorsementExpiries is those that are renewed: CRLs and collateral. VCEKs
// live for years and are one per machine.
func endorsementExpiries(s *endorsements.Supply) []web.Expiry {
	latest := map[[2]string]time.Time{}
	for _, e := range s.List() {
		id := [2]string{e.Kind, e.Name()}
		if (e.Kind == endorsements.KindCRL || e.Kind == endorsements.KindCollateral) && e.Expires.After(latest[id]) {
			latest[id] = e.Expires
		}
	}
	var all []web.Expiry
	for id, expires := range latest {
		all = append(all, web.Expiry{Kind: id[0], Name: id[1], Expires: expires})
	}
	return all
}
