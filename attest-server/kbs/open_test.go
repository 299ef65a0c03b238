package kbs

import "testing"

func TestUnmarshalOpen(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"a":1}`:             true,
		`{"a":1,"later":[2]}`: true,
		`{"a":1,"a":1}`:       false,
		`{"a":1,"A":1}`:       false,
		`{"a":1} x`:           false,
		`{"a":1}{}`:           false,
		`{"x":{"b":1,"b":2}}`: false,
		``:                    false,
	} {
		var v struct {
			A int `json:"a"`
		}
		if err := UnmarshalOpen([]byte(text), &v); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
