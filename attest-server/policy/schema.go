package policy

import (
	"encoding/hex"
	"reflect"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/ccrun/ccrun/attest-server/verifier"
)

// Expressions see verifier.Claims by the names of its JSON form:
//
//	bytes of any kind     string, lower-case hex
//	uint64 (bit masks)    uint
//	other integers        int
//	time.Time             timestamp
//	slices and arrays     list
//	structs               objects; a pointer that is nil is an absent field
//
// What Verify did (checks) is left out: it all passed, or there are no claims.

const rootType = "Claims"

type claimField struct {
	name  string
	typ   reflect.Type
	index int
}

func claimFields(t reflect.Type) []claimField {
	var all []claimField
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" || t == reflect.TypeFor[verifier.Claims]() && name == "checks" {
			continue
		}
		all = append(all, claimField{name, f.Type, i})
	}
	return all
}

func isBytes(t reflect.Type) bool {
	return (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) && t.Elem().Kind() == reflect.Uint8
}

// objectOf is the struct that t is, points to, or is a list of.
func objectOf(t reflect.Type) (reflect.Type, bool) {
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct && t != reflect.TypeFor[time.Time]()
}

func celType(t reflect.Type) *cel.Type {
	switch {
	case isBytes(t), t.Kind() == reflect.String:
		return cel.StringType
	case t == reflect.TypeFor[time.Time]():
		return cel.TimestampType
	}
	switch t.Kind() {
	case reflect.Pointer:
		return celType(t.Elem())
	case reflect.Struct:
		return cel.ObjectType(t.Name())
	case reflect.Slice, reflect.Array:
		return cel.ListType(celType(t.Elem()))
	case reflect.Bool:
		return cel.BoolType
	case reflect.Uint64:
		return cel.UintType
	}
	return cel.IntType // a test wants every kind listed here
}

// provider declares the claims' objects to CEL. Their values are maps, so that
// an absent field is an error, never a zero value.
type provider struct {
	types.Provider
	objects map[string]map[string]*cel.Type
}

func newProvider(base types.Provider) *provider {
	p := &provider{Provider: base, objects: map[string]map[string]*cel.Type{}}
	p.declare(reflect.TypeFor[verifier.Claims]())
	return p
}

func (p *provider) declare(t reflect.Type) {
	if p.objects[t.Name()] != nil {
		return
	}
	fields := map[string]*cel.Type{}
	p.objects[t.Name()] = fields
	for _, f := range claimFields(t) {
		fields[f.name] = celType(f.typ)
		if object, ok := objectOf(f.typ); ok {
			p.declare(object)
		}
	}
}

// FindStructType implements types.Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if p.objects[name] == nil {
		return p.Provider.FindStructType(name)
	}
	return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
}

// FindStructFieldNames implements types.Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	fields, ok := p.objects[name]
	if !ok {
		return p.Provider.FindStructFieldNames(name)
	}
	var names []string
	for f := range fields {
		names = append(names, f)
	}
	slices.Sort(names)
	return names, true
}

// FindStructFieldType implements types.Provider. Without IsSet and GetFrom,
// the interpreter looks into the value as into any map.
func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	fields, ok := p.objects[name]
	if !ok {
		return p.Provider.FindStructFieldType(name, field)
	}
	t, ok := fields[field]
	if !ok {
		return nil, false
	}
	return &types.FieldType{Type: t}, true
}

// view is claims as expressions see them.
func view(c *verifier.Claims) map[string]any {
	if c == nil {
		return map[string]any{}
	}
	return viewObject(reflect.ValueOf(*c))
}

func viewObject(v reflect.Value) map[string]any {
	m := map[string]any{}
	for _, f := range claimFields(v.Type()) {
		x := v.Field(f.index)
		if x.Kind() == reflect.Pointer {
			if x.IsNil() {
				continue
			}
			x = x.Elem()
		}
		m[f.name] = viewValue(x)
	}
	return m
}

func viewValue(v reflect.Value) any {
	if at, ok := v.Interface().(time.Time); ok {
		return at
	}
	if isBytes(v.Type()) {
		b := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(b), v)
		return hex.EncodeToString(b)
	}
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	case reflect.Uint64:
		return v.Uint()
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return int64(v.Uint())
	case reflect.Int:
		return v.Int()
	case reflect.Struct:
		return viewObject(v)
	case reflect.Slice, reflect.Array:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = viewValue(v.Index(i))
		}
		return list
	}
	return nil // a test wants every kind listed here
}
