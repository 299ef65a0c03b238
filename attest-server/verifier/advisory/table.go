// Package advisory is what is known to be broken in firmware: which advisory
// concerns which silicon, and the least firmware that mends it. A table of that
// is built in. Another, signed by whom the operator trusts, may take its place,
// but never an older one. Of claims and reports it knows nothing.
package advisory

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Table says which firmware is known to be broken. Take it from Builtin or
// Parse: those look it through and put it in order.
type Table struct {
	Format     int        `json:"format"`  // 1
	Version    int        `json:"version"` // greater than that of any table before
	Date       string     `json:"date"`    // YYYY-MM-DD, UTC
	Silicon    []Silicon  `json:"silicon"`
	Advisories []Advisory `json:"advisories"`

	byCPUID, byProduct map[string]*machine
	tdx                []TDXDemand
	digest             kbs.Digest
	title              string
}

// Silicon is one revision of a processor. Microcode levels count within one.
type Silicon struct {
	CPUID   string `json:"cpuid"`   // family/model/stepping in hex: see CPUID
	Product string `json:"product"` // Milan, Genoa, Turin
	Name    string `json:"name"`
}

// Advisory is one of a vendor's.
type Advisory struct {
	ID      string `json:"id"` // AMD-SB-3030, INTEL-SA-01397
	Title   string `json:"title"`
	Source  string `json:"source"`
	Checked bool   `json:"checked,omitempty"` // with the vendor's own page; else it is second hand
	// Warning is for what no firmware mends: said of all that Floors lists, and
	// refused of none.
	Warning bool      `json:"warning,omitempty"`
	Floors  []Floor   `json:"floors,omitempty"`
	TDX     *TDXFloor `json:"tdx,omitempty"`
}

// Floor is the least that one silicon must have. Zero asks for nothing.
type Floor struct {
	CPUID string     `json:"cpuid"`
	TCB   kbs.SNPTCB `json:"tcb,omitzero"` // each component on its own
	// MitigationBits must be set in LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR,
	// which reports have from version 5 on.
	MitigationBits []int `json:"mitigation_bits,omitempty"`
	PlatformBits   []int `json:"platform_bits,omitempty"` // of PLATFORM_INFO
}

// TDXFloor is the least that a TD's platform must have.
type TDXFloor struct {
	// Evaluation is the least tcbEvaluationDataNumber of the collateral that
	// the platform was judged by.
	Evaluation int `json:"evaluation,omitempty"`
	// ModuleSVNs is the least TEE_TCB_SVN[0] by TEE_TCB_SVN[1], the version of
	// the TDX module, in decimal.
	ModuleSVNs map[string]uint8 `json:"module_svns,omitempty"`
}

// Demand is what an advisory asks of one machine.
type Demand struct {
	Advisory *Advisory
	Floor    Floor
}

// TDXDemand is what an advisory asks of a TD's platform.
type TDXDemand struct {
	Advisory *Advisory
	TDXFloor
}

type machine struct {
	name    string
	demands []Demand
}

// CPUID is how tables and rules name a silicon.
func CPUID(family, model, stepping byte) string {
	return fmt.Sprintf("%02x/%02x/%x", family, model, stepping)
}

var (
	validCPUID = regexp.MustCompile(`^[0-9a-f]{2}/[0-9a-f]{2}/[1-9a-f]?[0-9a-f]$`)
	validID    = regexp.MustCompile(`^(AMD-SB|INTEL-SA)-[0-9]{1,8}$`)
)

// ValidCPUID says whether s is in the form of CPUID.
func ValidCPUID(s string) bool { return validCPUID.MatchString(s) }

// String names the table for people.
func (t *Table) String() string { return t.title }

// Digest is the SHA-384 of the table's text.
func (t *Table) Digest() kbs.Digest { return t.digest }

// day is when the table's date begins.
func (t *Table) day() (time.Time, error) { return time.Parse(time.DateOnly, t.Date) }

// Find is the advisory of that ID.
func (t *Table) Find(id string) (*Advisory, bool) {
	for i := range t.Advisories {
		if t.Advisories[i].ID == id {
			return &t.Advisories[i], true
		}
	}
	return nil, false
}

// SNP is what the table asks of a machine of that CPUID, and its name; not ok
// if it does not know it. An empty cpuid is of a report that names none: then
// all is asked that any silicon of the product must have.
func (t *Table) SNP(product, cpuid string) (name string, demands []Demand, ok bool) {
	m := t.byCPUID[cpuid]
	if cpuid == "" {
		m = t.byProduct[strings.ToLower(product)]
	}
	if m == nil {
		return "", nil, false
	}
	return m.name, m.demands, true
}

// TDX is what the table asks of every TD's platform.
func (t *Table) TDX() []TDXDemand { return t.tdx }
