package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// TestParseAndCheckRefuse: files that are no policy, that nothing could
// satisfy, or that would refuse nothing; by a part of the reason.
func TestParseAndCheckRefuse(t *testing.T) {
	c := compiler(t)
	for text, want := range map[string]string{
		"":                                     "EOF",
		"{}":                                   "empty",
		"null":                                 "empty",
		`{"snp":null,"cel":[]}`:                "empty",
		"[]":                                   "cannot unmarshal",
		`{"snp":{}} {}`:                        "data after",
		`{"snp":{},"snp":{}}`:                  "twice",
		`{"snp":{},"SNP":{}}`:                  "twice",
		`{"snp":{"debug":true}}`:               "unknown field",
		`{"sev":{}}`:                           "unknown field",
		`{"not_after":"2026-05-06T12:00:00Z"}`: "is past",
		`{"snp":{"vmpl":4}}`:                   "vmpl",
		`{"snp":{"chip_ids":["00"]}}`:          "chip_ids",
		`{"snp":{"chip_ids":["` + strings.Repeat("0", 128) + `"]}}`: "all zero",
		`{"snp":{"forbid_products":["Milan","Genoa","Turin"]}}`:     "every product",
		`{"snp":{"forbid_products":["Rome"]}}`:                      "Rome",
		`{"snp":{"signers":["ARK"]}}`:                               "ARK",
		`{"tdx":{"xfam":"0000000000000000"}}`:                       "xfam",
		`{"tdx":{"tcb_status":["Revoked"]}}`:                        "Revoked",
		`{"tdx":{"minimum_tee_tcb":"01"}}`:                          "minimum_tee_tcb",
		`{"vtpm":{"pcrs":{}}}`:                                      "PCR 4",
		`{"cel":[{"name":"x","expression":"true"}]}`:                "true whatever",
		`{"cel":[{"name":"x","expression":"claims.tee == 'snp'"},{"name":"x","expression":"claims.tee != 'tdx'"}]}`:               "two expressions",
		`{"cel":[` + strings.Repeat(`{"name":"x","expression":"now < now"},`, MaxExpressions) + `{"name":"x","expression":"1"}]}`: "at most",
		strings.Repeat(" ", kbs.MaxPolicyBody+1): "larger than allowed",
		strings.Repeat("[", 100_000):             "nested deeper",
	} {
		p, err := Parse([]byte(text))
		if err == nil {
			err = c.Check(p, noon)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %v, expected %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		`{"snp":{"allow_debug":true,"allow_migrate_ma":true,"allow_provisional":true,"allow_cxl":true,"allow_advisories":["all"]}}`: "refuse nothing",
		`{"snp":{"vmpl":1}}`:                                  "snp.vmpl",
		`{"snp":{"host_data":"` + digest(1)[:64] + `"}}`:      "snp.host_data",
		`{"tdx":{"rtmrs":{"0":"` + digest(1) + `"}}}`:         "tdx.rtmrs",
		`{"tdx":{"mr_config_id":"` + digest(1) + `"}}`:        "tdx.mr_config_id",
		`{"tdx":{"mr_owner":"` + digest(1) + `"}}`:            "tdx.mr_owner",
		`{"tdx":{"mr_owner_config":"` + digest(1) + `"}}`:     "tdx.mr_owner_config",
		`{"vtpm":{"pcrs":{"4":"` + digest(1)[:64] + `"}}}`:    "vtpm",
		`{"cel":[{"name":"x","expression":"claims.x == 1"}]}`: "undefined field",
	} {
		if err := c.CheckDefaults(mustParse(t, text), noon); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", text, err, want)
		}
	}
	for _, text := range []string{`{"snp":{}}`, `{"tdx":{}}`, `{"not_after":"2026-05-06T12:00:01Z"}`, `{"cel":[{"name":"x","expression":"has(claims.tdx)"}]}`,
		`{"snp":{"allow_debug":true,"allow_migrate_ma":true,"allow_provisional":true,"allow_cxl":true,"require_ecc":true}}`} {
		if err := c.CheckDefaults(mustParse(t, text), noon); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// claimPath is one claim as expressions name it; of a list's elements with [].
type claimPath struct{ path, celType string }

// allClaims is every claim that expressions can name.
func allClaims(typ reflect.Type, path string) []claimPath {
	var all []claimPath
	for _, f := range claimFields(typ) {
		name := path + "." + f.name
		object, isObject := objectOf(f.typ)
		switch {
		case isObject && f.typ.Kind() == reflect.Slice:
			all = append(all, allClaims(object, name+"[]")...)
		case isObject:
			all = append(all, allClaims(object, name)...)
		default:
			all = append(all, claimPath{name, celType(f.typ).String()})
		}
	}
	return all
}

// TestSchemaIsTheClaims: what expressions see has the names of the claims'
// JSON form, every field has a type, and every value the type it declares.
func TestSchemaIsTheClaims(t *testing.T) {
	fields := map[string]string{}
	for _, f := range allClaims(reflect.TypeFor[verifier.Claims](), "claims") {
		fields[f.path] = f.celType
	}
	var check func(reflect.Type, string)
	check = func(typ reflect.Type, path string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch kind := f.Type.Kind(); {
			case name == "":
				t.Errorf("%s.%s has no JSON name", path, f.Name)
			case path == "claims" && name == "checks":
				continue
			case kind == reflect.Int64 || kind == reflect.Float64 || kind == reflect.Map || kind == reflect.Interface:
				t.Errorf("%s.%s is of a kind that expressions cannot see: extend celType and viewValue", path, name)
			}
			if object, ok := objectOf(f.Type); ok {
				if f.Type.Kind() == reflect.Slice {
					name += "[]"
				}
				check(object, path+"."+name)
			} else if fields[path+"."+name] == "" {
				t.Errorf("%s.%s is not in the schema", path, name)
			}
		}
	}
	check(reflect.TypeFor[verifier.Claims](), "claims")

	// Compare each field with itself plus a tail, which its type must allow.
	c := compiler(t)
	full := snpClaims()
	full.TDX, full.VTPM = tdxClaims().TDX, &verifier.VTPMClaims{}
	full.TDX.EventLog = &verifier.EventLogClaims{Events: []verifier.EventClaim{{Digest: verifier.Hex{1}}}}
	for path, typ := range fields {
		if strings.Contains(path, "[]") {
			continue
		}
		tail := map[string]string{"string": ` + "x"`, "int": " + 1", "uint": " + 1u", "list(string)": ` + ["x"]`, "timestamp": ` + duration("1s")`, "bool": " == false"}[typ]
		text := path + tail + " != " + path
		if typ == "bool" {
			text = path + " in [true, false] && has(claims.snp)"
		}
		x, err := c.compile(kbs.Expression{Name: "x", Expression: text}, "")
		if err != nil || tail == "" {
			t.Errorf("%s of type %s: %v", path, typ, err)
			continue
		}
		if r := x.Apply(full, noon); !r.Pass {
			t.Errorf("%s: %s", text, r.Got)
		}
	}
}

// TestViewIsTheJSON: the values are those of the JSON form.
func TestViewIsTheJSON(t *testing.T) {
	b, err := json.Marshal(snpClaims())
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	b, err = json.Marshal(view(snpClaims()))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, v := range got["snp"].(map[string]any) {
		if tcb, ok := v.(map[string]any); ok && tcb["fmc"] == 0. {
			delete(tcb, "fmc") // left out of the JSON form, where it is Turin's
		}
	}
	if !reflect.DeepEqual(got["snp"], want["snp"]) || !reflect.DeepEqual(got["chain"], want["chain"]) || got["launch_digest"] != want["launch_digest"] || got["report_data"] != want["report_data"] {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if _, ok := got["tdx"]; ok {
		t.Error("an absent TEE is there")
	}
}

// FuzzPolicy: whatever is parsed and checked can be written and read again,
// merged with itself without changing, and be evaluated.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"snp":{"chip_ids":["` + strings.Repeat("07", 64) + `"],"minimum_tcbs":{"19/01/1":{"snp":3}},"allow_advisories":["AMD-SB-1=2027-01-01"]},"not_after":"2030-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"tdx":{"tcb_status":["OutOfDate"],"xfam":"00000000000000ff","minimum_tee_tcb":"02000000000000000000000000000000"},"cel":[{"name":"a","expression":"claims.tee == 'tdx'"}]}`))
	c := compiler(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil || c.CheckDefaults(p, noon) != nil {
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := Parse(again)
		if err != nil || !reflect.DeepEqual(p, q) && string(again) != show(q) {
			t.Fatalf("%s became %s: %v", again, show(q), err)
		}
		for _, tee := range []kbs.TEE{kbs.SNP, kbs.TDX} {
			e, err := c.Effective(Apply(measured(tee), kbs.Policy{SNP: p.SNP, TDX: p.TDX}), Part{kbs.LevelServer, p}, Part{kbs.LevelTenant, p})
			if err != nil {
				t.Fatalf("%s contradicts itself: %v", again, err)
			}
			e.Appraise(perfect(tee), bound)
		}
	})
}

// FuzzExpression: no text makes compiling or evaluating panic or take long,
// and what compiles is a yes or a no or an error.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{"claims.tee == 'snp'", "claims.chain.all(c, c.not_after > now)", "claims.snp.vmpl < 3 && !has(claims.tdx) ? true : false",
		"[1,2].map(x, x * 2).exists(y, y == claims.snp.vmpl)", "{'a': 1}['a'] == claims.snp.vmpl", "claims.tdx.rtmrs[0].startsWith('0')", "bitAnd(claims.snp.platform_info, 7u) == 1u"} {
		f.Add(s)
	}
	c := compiler(f)
	f.Fuzz(func(t *testing.T, s string) {
		start := time.Now()
		x, err := c.compile(kbs.Expression{Name: "x", Expression: s}, "")
		if err == nil {
			for _, claims := range []*verifier.Claims{snpClaims(), tdxClaims(), {}} {
				if r := x.Apply(claims, noon); r.Pass != (r.Got == "true") {
					t.Errorf("%+v", r)
				}
			}
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("%s for %q", d, s)
		}
	})
}

// TestClaimsAreDocumented: the page lists every claim under its type.
func TestClaimsAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "verification.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if cells := strings.Split(line, " | "); len(cells) == 2 && strings.HasPrefix(cells[1], "`claims.") {
			rows[strings.TrimPrefix(cells[0], "| ")] = cells[1]
		}
	}
	for _, f := range allClaims(reflect.TypeFor[verifier.Claims](), "claims") {
		if !strings.Contains(rows[f.celType], "`"+f.path+"`") {
			t.Errorf("%s is not documented as %s", f.path, f.celType)
		}
	}
}
