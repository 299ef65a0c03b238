package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	attestadmin "github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/hint"
)

// meaning is the client certificates that a configuration names, each with the
// tenant that it means.
type meaning struct {
	list    []attestadmin.ClientCertificate
	tenants string // as store.Configured has them
	unmeant error  // says which certificates are of no tenant: they are refused when they come
}

// meant gives the names of tenants in cfg their meaning: the tenant of before,
// if before says so, else the one that has the name now.
func meant(ctx context.Context, s *store.DB, cfg Config, before string) (m meaning, err error) {
	m.list = cfg.clients()
	known := map[string]int64{}
	for name := range strings.FieldsSeq(before) {
		name, made, _ := strings.Cut(name, "=")
		if known[name], err = strconv.ParseInt(made, 10, 64); err != nil {
			return m, fmt.Errorf("reading which tenants certificates mean: %w", err)
		}
	}
	for i, x := range m.list {
		if x.Tenant == "" {
			continue
		}
		made, err := s.TenantMade(ctx, x.Tenant)
		then, was := known[x.Tenant]
		switch {
		case errors.Is(err, store.ErrNotFound):
			m.unmeant = errors.Join(m.unmeant, hint.With(fmt.Errorf("client certificate %s is of tenant %s, which does not exist", x.Subject, x.Tenant),
				"correct `clients`, or make it and reload: `attest-server tenant set %s`", x.Tenant))
			continue
		case err != nil:
			return m, err
		case was && then != made:
			m.unmeant = errors.Join(m.unmeant, hint.With(fmt.Errorf("client certificate %s is of a tenant %s that was removed; there is another of that name", x.Subject, x.Tenant),
				"correct `clients`, or, if the certificate is the new one's, reload"))
			made = then
		}
		m.list[i].TenantMade, known[x.Tenant] = made, made
		if entry := fmt.Sprintf("%s=%d", x.Tenant, made); !slices.Contains(strings.Fields(m.tenants), entry) {
			m.tenants = strings.TrimSpace(m.tenants + " " + entry)
		}
	}
	return m, nil
}

// meantAtStart takes the word of a configuration that has not changed since it
// was read last as it was meant then.
func meantAtStart(ctx context.Context, s *store.DB, cfg Config) (m meaning, err error) {
	before, err := s.Configured(ctx)
	if err != nil {
		return m, err
	}
	if before.Configuration != cfg.inForce.Configuration {
		before.Tenants = ""
	}
	return meant(ctx, s, cfg, before.Tenants)
}
