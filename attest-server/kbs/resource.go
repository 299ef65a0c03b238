package kbs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/secret"
)

const (
	// MaxResourceBytes bounds a resource's value.
	MaxResourceBytes = 32 << 10
	// MaxResourceBody bounds a request to set one.
	MaxResourceBody = 128 << 10
)

// A workload's DiskKey is, where CoCo's clients ask, the resource
// ccrun/disk-key/WORKLOAD_ID, that of a rotation under way
// ccrun/disk-key.staged/WORKLOAD_ID. No other resource can have these names.
const (
	DiskKeyRepo       = "ccrun"
	DiskKeyType       = "disk-key"
	StagedDiskKeyType = "disk-key.staged"
)

// ResourceID names a secret for attested workloads: REPO/TYPE/TAG.
type ResourceID struct{ Repo, Type, Tag string }

// ParseResourceID reads REPO/TYPE/TAG, each up to 64 letters, digits, '.', '_'
// and '-', the first no '.': what CoCo allows.
func ParseResourceID(s string) (ResourceID, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return ResourceID{}, fmt.Errorf("resource %q: expected REPO/TYPE/TAG", s)
	}
	id := ResourceID{parts[0], parts[1], parts[2]}
	for _, p := range parts {
		if !bounded.Name(p, 64, bounded.Letters+bounded.Digits+"_-", bounded.Letters+bounded.Digits+"._-") {
			return ResourceID{}, fmt.Errorf("resource %q: expected REPO/TYPE/TAG, each up to 64 letters, digits, '.', '_' and '-', not beginning with '.'", s)
		}
	}
	return id, nil
}

func (id ResourceID) String() string { return id.Repo + "/" + id.Type + "/" + id.Tag }

func (id ResourceID) path() string {
	return "/v1/resources/" + url.PathEscape(id.Repo) + "/" + url.PathEscape(id.Type) + "/" + url.PathEscape(id.Tag)
}

// ResourceName is the name under which a resource is sealed to a TEEKey (see
// ReleaseInfo) and approved.
func ResourceName(id ResourceID) string { return "resource/" + id.String() }

// ResourcePolicy says who gets a resource. The zero value is nobody and is
// refused.
type ResourcePolicy struct {
	// Workloads are ids of workloads that may have it, Tenants those all of
	// whose workloads may. One of the two must hold.
	Workloads []string `json:"workloads,omitempty"`
	Tenants   []string `json:"tenants,omitempty"`
	// Approvals are tenants that must each have approved it for exactly the
	// workload's registration: see Approval.
	Approvals []string `json:"approvals,omitempty"`
}

// ResourceRequest sets a resource: PUT /v1/resources/{repo}/{type}/{tag}.
// Value never appears in an answer to an owner.
type ResourceRequest struct {
	Value  []byte         `json:"value"`
	Policy ResourcePolicy `json:"policy"`
}

// ResourceAnswer is the answer to ResourceRequest.
type ResourceAnswer struct {
	Version int64 `json:"version"`
	Created bool  `json:"created"` // false: the newest version was this already
}

// ResourceMeta is everything about a resource but its value.
type ResourceMeta struct {
	Resource string            `json:"resource"`
	Versions []ResourceVersion `json:"versions"` // newest first
}

// ResourceVersion is one value that a resource has or had.
type ResourceVersion struct {
	Version     int64          `json:"version"`
	SizeBytes   int64          `json:"size_bytes"`
	Policy      ResourcePolicy `json:"policy"`
	CreatedAt   time.Time      `json:"created_at"`
	CreatedBy   string         `json:"created_by"`
	Releases    int64          `json:"releases"`
	LastRelease *time.Time     `json:"last_release,omitempty"`
}

// ResourceList is one page of GET /v1/resources, ordered by name.
type ResourceList struct {
	Resources []string `json:"resources"`
	Next      string   `json:"next,omitempty"`
}

// Approval is a tenant's consent that what is called Name (ResourceName or
// ReleaseName) be released to workload WorkloadID as registered with
// RegistrationDigest, the SHA-384 of the registration's RFC 8785 form, and so
// to nothing else that may be registered under that id later. It is made by
// PUT, withdrawn by DELETE, and listed by GET /v1/approvals.
type Approval struct {
	Name               string `json:"name"`
	WorkloadID         string `json:"workload_id"`
	RegistrationDigest Digest `json:"registration_digest"`
}

// ApprovalList is a tenant's approvals.
type ApprovalList struct {
	Approvals []Approval `json:"approvals"`
}

// SetResource gives a resource a new version.
func (c *AdminClient) SetResource(ctx context.Context, id ResourceID, req ResourceRequest) (*ResourceAnswer, error) {
	var a ResourceAnswer
	if err := c.do(ctx, http.MethodPut, id.path(), req, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// ResourceMeta is what is known of a resource but its value.
func (c *AdminClient) ResourceMeta(ctx context.Context, id ResourceID) (*ResourceMeta, error) {
	var m ResourceMeta
	if err := c.do(ctx, http.MethodGet, id.path(), nil, &m); err != nil {
		return nil, err
	}
	return &m, nil
}

// Resources is every resource's name, in order.
func (c *AdminClient) Resources(ctx context.Context) ([]string, error) {
	all := []string{}
	for after := ""; ; {
		var page ResourceList
		q := url.Values{"limit": {strconv.Itoa(listPage)}}
		if after != "" {
			q.Set("after", after)
		}
		if err := c.do(ctx, http.MethodGet, "/v1/resources?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Resources...)
		if page.Next == "" {
			return all, nil
		}
		if page.Next <= after {
			return nil, errors.New("listing resources: the server's pages do not advance")
		}
		after = page.Next
	}
}

// RemoveResource deletes every version of a resource.
func (c *AdminClient) RemoveResource(ctx context.Context, id ResourceID) error {
	return c.do(ctx, http.MethodDelete, id.path(), nil, nil)
}

// Approve makes an approval of the token's tenant.
func (c *AdminClient) Approve(ctx context.Context, a Approval) error {
	return c.do(ctx, http.MethodPut, "/v1/approvals", a, nil)
}

// Withdraw takes an approval back.
func (c *AdminClient) Withdraw(ctx context.Context, a Approval) error {
	return c.do(ctx, http.MethodDelete, "/v1/approvals", a, nil)
}

// Resource fetches a resource, its newest version, in the guest's session.
func (s *Session) Resource(ctx context.Context, id ResourceID) (secret.Bytes, error) {
	return s.fetch(ctx, id.path(), ResourceName(id))
}
