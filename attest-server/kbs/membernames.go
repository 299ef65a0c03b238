package kbs

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// member is a member that a struct has in JSON.
type member struct {
	name string
	of   reflect.Type
}

// opaque is the type of what is not looked into: any value, or one that decodes
// itself.
var opaque = reflect.TypeFor[any]()

var decodesItself = reflect.TypeFor[json.Unmarshaler]()

// shape is the type whose decoding decides what t means in JSON: t without
// pointers, or opaque.
func shape(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer && !t.Implements(decodesItself) {
		t = t.Elem()
	}
	if t == nil || t.Implements(decodesItself) || reflect.PointerTo(t).Implements(decodesItself) {
		return opaque
	}
	return t
}

// element is the type of what stands in an array of t, or under a name in a
// map t.
func element(t reflect.Type) reflect.Type {
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return shape(t.Elem())
	}
	return opaque
}

// member is what t expects under a name, or an error if encoding/json would
// take the name for another one, which differs in the case of its letters:
// other parsers, and the digest of the text, tell the two apart.
func (w *walk) member(t reflect.Type, name, folded string) (reflect.Type, error) {
	if t.Kind() != reflect.Struct {
		return element(t), nil
	}
	members, ok := w.members[t]
	if !ok {
		members = make(map[string]member, t.NumField())
		addMembers(members, t)
		w.members[t] = members
	}
	switch m, ok := members[folded]; {
	case !ok: // whether unknown ones pass is the decoder's
		return opaque, nil
	case m.name != name:
		return nil, fmt.Errorf("JSON member %q is misspelt, expected %q", name, m.name)
	default:
		return shape(m.of), nil
	}
}

// addMembers adds t's members, by the fold of their names.
func addMembers(to map[string]member, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		inner := shape(f.Type)
		switch {
		case f.Anonymous && name == "" && inner.Kind() == reflect.Struct:
			addMembers(to, inner)
		case f.IsExported() && tag != "-":
			if name == "" {
				name = f.Name
			}
			to[fold(name)] = member{name, f.Type}
		}
	}
}
