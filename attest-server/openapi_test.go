package attestserver

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

const descriptionURL = "https://openapi.invalid/openapi.json"

// description is openapi.yaml, parsed.
type description struct {
	doc      map[string]any
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema
}

var described = sync.OnceValues(func() (*description, error) {
	b, err := yaml.YAMLToJSONStrict(openAPI)
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.AssertContent()
	return &description{doc: doc.(map[string]any), compiler: c, schemas: map[string]*jsonschema.Schema{}}, c.AddResource(descriptionURL, doc)
})

// at is the value at a path of keys.
func (d *description) at(keys ...string) any {
	var v any = d.doc
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// check validates a JSON text against the schema at a path of keys.
func (d *description) check(body []byte, keys ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	pointer := ""
	for _, k := range keys {
		pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(k))
	}
	s := d.schemas[pointer]
	if s == nil {
		var err error
		if s, err = d.compiler.Compile(descriptionURL + "#" + pointer); err != nil {
			return err
		}
		d.schemas[pointer] = s
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// operation splits a ServeMux pattern of what is described; "" if it is not.
func operation(pattern string) (path, method string) {
	m, p, ok := strings.Cut(pattern, " ")
	if !ok || !strings.HasPrefix(p, "/v1/") && p != "/healthz" && p != "/readyz" && p != "/metrics" {
		return "", ""
	}
	return p, strings.ToLower(m)
}

func mustDescribe(t testing.TB) *description {
	t.Helper()
	d, err := described()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return d
}

// TestRoutesAreDescribed: every route is in the description, and every
// operation of the description is a route.
func TestRoutesAreDescribed(t *testing.T) {
	d := mustDescribe(t)
	var routes, operations []string
	for _, pattern := range newRig(t).server.routes().Patterns {
		if path, method := operation(pattern); path != "" {
			routes = append(routes, method+" "+path)
		}
	}
	for path, item := range d.at("paths").(map[string]any) {
		for method, op := range item.(map[string]any) {
			operations = append(operations, method+" "+path)
			o := op.(map[string]any)
			if o["summary"] == nil || o["responses"] == nil || o["security"] == nil {
				t.Errorf("%s %s lacks summary, security or responses", method, path)
			}
			for _, name := range pathParameters(path) {
				if !hasParameter(d, o, name) {
					t.Errorf("%s %s does not describe {%s}", method, path, name)
				}
			}
		}
	}
	slices.Sort(routes)
	slices.Sort(operations)
	for _, r := range routes {
		if !slices.Contains(operations, r) {
			t.Errorf("route %s is not described", r)
		}
	}
	for _, o := range operations {
		if !slices.Contains(routes, o) {
			t.Errorf("described operation %s is no route", o)
		}
	}
}

func pathParameters(path string) (names []string) {
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

func hasParameter(d *description, op map[string]any, name string) bool {
	list, _ := op["parameters"].([]any)
	return slices.ContainsFunc(list, func(p any) bool {
		ref, _ := p.(map[string]any)["$ref"].(string)
		key, ok := strings.CutPrefix(ref, "#/components/parameters/")
		return ok && d.at("components", "parameters", key, "name") == name && d.at("components", "parameters", key, "in") == "path"
	})
}

// TestSchemasAreTheTypes: each schema has the members of its Go type, and
// requires those that are always there.
func TestSchemasAreTheTypes(t *testing.T) {
	d := mustDescribe(t)
	seen := map[string]bool{"Digest": true, "TEE": true, "JWKSet": true}
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[kbs.Problem]().PkgPath() || seen[typ.Name()] {
			return
		}
		seen[typ.Name()] = true
		var members, required []string
		for _, f := range reflect.VisibleFields(typ) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			members = append(members, name)
			if !strings.Contains(options, "omit") {
				required = append(required, name)
			}
			check(f.Type)
		}
		schema, _ := d.at("components", "schemas", typ.Name()).(map[string]any)
		if schema == nil || schema["additionalProperties"] != false {
			t.Errorf("schema %s is missing or open", typ.Name())
			return
		}
		var described, requires []string
		for name := range schema["properties"].(map[string]any) {
			described = append(described, name)
		}
		list, _ := schema["required"].([]any)
		for _, r := range list {
			requires = append(requires, r.(string))
		}
		for _, x := range []struct {
			what      string
			got, want []string
		}{{"members", described, members}, {"required members", requires, required}} {
			slices.Sort(x.got)
			slices.Sort(x.want)
			if !slices.Equal(x.got, x.want) {
				t.Errorf("schema %s has %s %v, the type %v", typ.Name(), x.what, x.got, x.want)
			}
		}
	}
	for _, v := range []any{
		kbs.AuthRequest{}, kbs.AuthAnswer{}, kbs.AttestRequest{}, kbs.AttestAnswer{}, kbs.ConfirmAnswer{}, kbs.Sealed{}, kbs.Problem{}, kbs.RegisterRequest{},
		kbs.RegisterAnswer{}, kbs.WorkloadList{}, kbs.SessionList{}, kbs.SessionRecord{}, kbs.SessionEvidence{}, kbs.AuditPage{}, kbs.AuditHead{}, kbs.MachineList{}, kbs.Incident{},
		kbs.RotateRequest{}, kbs.RotateAnswer{}, kbs.Bootable{}, kbs.BootList{}, kbs.AgentSegment{}, kbs.UpdateRequest{}, kbs.UpdateAnswer{}, kbs.ResourceRequest{}, kbs.ResourceAnswer{}, kbs.ResourceMeta{}, kbs.ResourceList{}, kbs.WorkloadConfig{}, kbs.ConfigChange{}, kbs.ConfigAnswer{}, kbs.ConfigMeta{}, kbs.GuestReport{}, kbs.ReportAnswer{}, kbs.ApprovalList{}, kbs.Policy{},
		kbs.VolumeOpenRequest{}, kbs.VolumeGrant{}, kbs.VolumeStageRequest{}, kbs.VolumeStageAnswer{}, kbs.VolumeConfirmRequest{}, kbs.VolumeConfirmAnswer{}, kbs.VolumeAcceptRequest{}, kbs.VolumeList{}, kbs.SessionList{},
		kbs.Whoami{}, kbs.RenewalAnswer{}, kbs.RenewRequest{}, kbs.SecretsRequest{}, kbs.SecretsAnswer{}, kbs.SecretList{},
	} {
		check(reflect.TypeOf(v))
	}
	for name := range d.at("components", "schemas").(map[string]any) {
		if !seen[name] {
			t.Errorf("schema %s is no type", name)
		}
	}
}

// TestCheckerRefuses: the checks of this file can fail.
func TestCheckerRefuses(t *testing.T) {
	d := mustDescribe(t)
	schema := []string{"components", "schemas", "AuthRequest"}
	for body, ok := range map[string]bool{
		`{"version":1,"tee":"snp","workload_id":"x"}`:           true,
		`{"version":1,"tee":"snp"}`:                             false,
		`{"version":1,"tee":"sgx","workload_id":"x"}`:           false,
		`{"version":1,"tee":"snp","workload_id":"x","extra":1}`: false,
		`{"version":"1","tee":"snp","workload_id":"x"}`:         false,
	} {
		if err := d.check([]byte(body), schema...); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
	sealed := []string{"components", "schemas", "Sealed"}
	for body, ok := range map[string]bool{
		`{"enc":"AA==","ciphertext":"AA==","server_time":"2026-05-06T07:08:09Z"}`: true,
		`{"enc":"%","ciphertext":"AA==","server_time":"2026-05-06T07:08:09Z"}`:    false,
		`{"enc":"AA==","ciphertext":"AA==","server_time":"yesterday"}`:            false,
	} {
		if err := d.check([]byte(body), sealed...); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// asDescribed checks every answer that h gives in a test, and every request
// that succeeds, against the description.
func asDescribed(t testing.TB, h http.Handler) http.Handler {
	if _, ok := t.(*testing.B); ok {
		return h
	}
	d := mustDescribe(t)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in bytes.Buffer
		if r.Body != nil {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(r.Body, &in), r.Body}
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
		if path, method := operation(r.Pattern); path != "" {
			checkExchange(t, d, path, method, in.Bytes(), rec)
		}
	})
}

func checkExchange(t testing.TB, d *description, path, method string, in []byte, rec *httptest.ResponseRecorder) {
	media, _, _ := strings.Cut(rec.Header().Get("Content-Type"), ";")
	if rec.Code >= 400 {
		if err := d.check(rec.Body.Bytes(), "components", "schemas", "Problem"); err != nil || media != "application/problem+json" {
			t.Errorf("%s %s: %d %s is no problem as described: %v", method, path, rec.Code, media, err)
		}
		return
	}
	response := []string{"paths", path, method, "responses", strconv.Itoa(rec.Code)}
	if d.at(response...) == nil {
		t.Errorf("%s %s: status %d is not described", method, path, rec.Code)
		return
	}
	if d.at(append(response, "content")...) == nil {
		if rec.Body.Len() > 0 {
			t.Errorf("%s %s: a body that is not described", method, path)
		}
	} else if d.at(append(response, "content", media)...) == nil {
		t.Errorf("%s %s: type %s is not described", method, path, media)
	} else if media == "application/json" {
		if err := d.check(rec.Body.Bytes(), append(response, "content", media, "schema")...); err != nil {
			t.Errorf("%s %s: answer is not as described: %v\n%s", method, path, err, rec.Body)
		}
	}
	request := []string{"paths", path, method, "requestBody", "content", "application/json", "schema"}
	if d.at(request...) != nil {
		if err := d.check(in, request...); err != nil {
			t.Errorf("%s %s: accepted request is not as described: %v\n%s", method, path, err, in)
		}
	} else if len(in) > 0 && method != "get" {
		t.Errorf("%s %s: accepted a body that is not described", method, path)
	}
}

func TestDescriptionIsServed(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	status, b := r.call("GET", "/v1/openapi.yaml", "", nil)
	if status != http.StatusOK || !bytes.Equal(b, openAPI) || !strings.Contains(string(b), "openapi: 3.1.0") {
		t.Errorf("%d %.100q", status, b)
	}
	for _, path := range []string{"/v1/audit/head", "/v1/audit", "/v1/workloads", "/v1/workloads/w1", "/healthz", "/readyz"} {
		if status, b := r.call("GET", path, string(r.token(store.Auditor).Reveal()), nil); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
}
