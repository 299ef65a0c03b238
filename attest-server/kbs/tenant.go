package kbs

import (
	"strings"

	"github.com/ccrun/ccrun/bounded"
)

// ValidTenant says whether name can be a tenant's: up to 32 lower-case
// letters, digits and '-', no '.'.
func ValidTenant(name string) bool {
	return bounded.Name(name, 32, bounded.Lower+bounded.Digits, bounded.Lower+bounded.Digits+"-")
}

// Owns says whether what is called name belongs to the tenant. A tenant's
// names begin with its own and a dot (workloads, resource repositories), or
// are its own (a resource repository), so that two tenants can never want the
// same one and none can find out what another has. The server's operator, the
// empty tenant, owns everything.
func Owns(tenant, name string) bool {
	if tenant == "" {
		return true
	}
	repo, _, _ := strings.Cut(name, "/")
	return repo == tenant || strings.HasPrefix(repo, tenant+".")
}

// TenantOf is the tenant that name belongs to, if such a tenant there is.
func TenantOf(name string) string {
	repo, _, _ := strings.Cut(name, "/")
	t, _, _ := strings.Cut(repo, ".")
	return t
}
