package advisory

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// MaxBytes bounds a table, in bytes, with its signatures.
const MaxBytes = 1 << 20

// Bounds of what a table may list.
const (
	format        = 1
	maxVersion    = 1 << 30
	maxSilicon    = 256
	maxAdvisories = 1024
	maxText       = 300 // bytes of a name, title or source
	maxBit        = 63
)

//go:embed table.json
var builtin []byte

// Builtin is the table that this program was built with.
func Builtin() (*Table, error) {
	t, err := Parse(builtin)
	if err != nil {
		return nil, fmt.Errorf("reading the built-in advisories: %w", err)
	}
	return t, nil
}

// Parse reads a table and refuses one that contradicts itself or asks for
// nothing. Who made it is not looked at: see Open.
func Parse(b []byte) (*Table, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("advisories of %d bytes, expected at most %d", len(b), MaxBytes)
	}
	t := &Table{}
	if err := kbs.UnmarshalStrict(b, t); err != nil {
		return nil, fmt.Errorf("reading advisories: %w", err)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("reading advisories: %w", err)
	}
	t.digest, t.title = kbs.Sum384(b), fmt.Sprintf("table %d of %s", t.Version, t.Date)
	t.order()
	return t, nil
}

func (t *Table) check() error {
	switch {
	case t.Format != format:
		return fmt.Errorf("format %d, expected %d", t.Format, format)
	case t.Version < 1 || t.Version > maxVersion:
		return fmt.Errorf("version %d, expected 1 to %d", t.Version, maxVersion)
	case len(t.Silicon) == 0 || len(t.Silicon) > maxSilicon:
		return fmt.Errorf("%d kinds of silicon, expected 1 to %d", len(t.Silicon), maxSilicon)
	case len(t.Advisories) == 0 || len(t.Advisories) > maxAdvisories:
		return fmt.Errorf("%d advisories, expected 1 to %d", len(t.Advisories), maxAdvisories)
	}
	if _, err := t.day(); err != nil {
		return fmt.Errorf("date %q, expected YYYY-MM-DD", t.Date)
	}
	known := map[string]bool{}
	for _, s := range t.Silicon {
		if !ValidCPUID(s.CPUID) || known[s.CPUID] {
			return fmt.Errorf("silicon %q, expected family/model/stepping in hex such as 19/01/1, each once", s.CPUID)
		}
		if err := errors.Join(checkText("name of "+s.CPUID, s.Name), checkText("product of "+s.CPUID, s.Product)); err != nil {
			return err
		}
		known[s.CPUID] = true
	}
	seen := map[string]bool{}
	for i := range t.Advisories {
		a := &t.Advisories[i]
		if !validID.MatchString(a.ID) || seen[a.ID] {
			return fmt.Errorf("advisory %q, expected a number such as AMD-SB-3030, each once", a.ID)
		}
		seen[a.ID] = true
		if err := a.check(known); err != nil {
			return fmt.Errorf("%s: %w", a.ID, err)
		}
	}
	return nil
}

// checkText lets no control character reach a terminal or a log.
func checkText(what, s string) error {
	if s == "" || len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("%s: expected 1 to %d printable ASCII characters", what, maxText)
	}
	return nil
}

func (a *Advisory) check(known map[string]bool) error {
	if err := errors.Join(checkText("title", a.Title), checkText("source", a.Source)); err != nil {
		return err
	}
	if len(a.Floors) == 0 && a.TDX == nil {
		return errors.New("neither floors nor tdx: it would refuse nothing")
	}
	if a.TDX != nil {
		if err := a.TDX.check(); err != nil || a.Warning {
			return errors.Join(err, errIf(a.Warning, "a warning about TDX, expected one about silicon"))
		}
	}
	seen := map[string]bool{}
	for _, f := range a.Floors {
		switch {
		case !known[f.CPUID] || seen[f.CPUID]:
			return fmt.Errorf("floor of silicon %q, expected one that the table lists, each once", f.CPUID)
		case a.Warning != f.asksNothing():
			return fmt.Errorf("floor of silicon %s: expected something asked for, and of a warning nothing", f.CPUID)
		case !validBits(f.MitigationBits) || !validBits(f.PlatformBits):
			return fmt.Errorf("floor of silicon %s: expected bits from 0 to %d, each once", f.CPUID, maxBit)
		}
		seen[f.CPUID] = true
	}
	return nil
}

func errIf(is bool, text string) error {
	if is {
		return errors.New(text)
	}
	return nil
}

func (f Floor) asksNothing() bool {
	return f.TCB == kbs.SNPTCB{} && len(f.MitigationBits) == 0 && len(f.PlatformBits) == 0
}

func validBits(bits []int) bool {
	for i, b := range bits {
		if b < 0 || b > maxBit || slices.Contains(bits[:i], b) {
			return false
		}
	}
	return true
}

func (f *TDXFloor) check() error {
	if f.Evaluation < 0 || f.Evaluation == 0 && len(f.ModuleSVNs) == 0 {
		return errors.New("tdx: expected an evaluation or module_svns")
	}
	for v, svn := range f.ModuleSVNs {
		if n, err := strconv.ParseUint(v, 10, 8); err != nil || strconv.FormatUint(n, 10) != v || svn == 0 {
			return fmt.Errorf("tdx: module_svns of %q: expected a version from 0 to 255 and an SVN above 0", v)
		}
	}
	return nil
}

// order makes what is looked up for each attestation.
func (t *Table) order() {
	t.byCPUID, t.byProduct = map[string]*machine{}, map[string]*machine{}
	for _, s := range t.Silicon {
		t.byCPUID[s.CPUID] = &machine{name: s.Name}
		t.byProduct[strings.ToLower(s.Product)] = &machine{name: s.Product + ", its revision not named"}
	}
	for i := range t.Advisories {
		a := &t.Advisories[i]
		for _, f := range a.Floors {
			m := t.byCPUID[f.CPUID]
			m.demands = append(m.demands, Demand{a, f})
		}
		for _, s := range t.Silicon {
			if f, ok := a.floor(s.CPUID); ok {
				t.byProduct[strings.ToLower(s.Product)].raise(a, f)
			}
		}
		if a.TDX != nil {
			t.tdx = append(t.tdx, TDXDemand{a, *a.TDX})
		}
	}
}

func (a *Advisory) floor(cpuid string) (Floor, bool) {
	i := slices.IndexFunc(a.Floors, func(f Floor) bool { return f.CPUID == cpuid })
	if i < 0 {
		return Floor{}, false
	}
	return a.Floors[i], true
}

// raise asks of m what f does too.
func (m *machine) raise(a *Advisory, f Floor) {
	last := len(m.demands) - 1
	if last < 0 || m.demands[last].Advisory != a {
		m.demands = append(m.demands, Demand{Advisory: a})
		last++
	}
	have := &m.demands[last].Floor
	have.TCB = have.TCB.Max(f.TCB)
	have.MitigationBits = joinBits(have.MitigationBits, f.MitigationBits)
	have.PlatformBits = joinBits(have.PlatformBits, f.PlatformBits)
}

func joinBits(a, b []int) []int {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}
