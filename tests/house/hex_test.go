package house

import (
	"go/ast"
	"go/constant"
	"go/types"
	"regexp"
	"testing"
)

// refuseHexOfHex: %x of a value that prints itself, as digests do, gives the
// hexadecimal digits of its hexadecimal digits. Nobody finds a chip by those.
func refuseHexOfHex(t *testing.T, c *checked) {
	t.Helper()
	for _, f := range c.files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			for _, arg := range hexArguments(call, c.info) {
				if is := c.info.Types[arg].Type; printsItself(is) {
					t.Errorf("%s: hexadecimal digits of a %s, which prints itself: use %%s", c.fset.Position(arg.Pos()), is)
				}
			}
			return true
		})
	}
}

// verb is one of a format: flags, width and precision without *.
var verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(?:\.[0-9]+)?([a-zA-Z%])`)

// hexArguments are a call's arguments that its constant format prints by %x.
func hexArguments(call *ast.CallExpr, info *types.Info) (hex []ast.Expr) {
	for i, a := range call.Args {
		v := info.Types[a].Value
		if v == nil || v.Kind() != constant.String || call.Ellipsis.IsValid() {
			continue
		}
		next := i + 1
		for _, m := range verb.FindAllStringSubmatch(constant.StringVal(v), -1) {
			if m[1] == "%" {
				continue
			}
			if (m[1] == "x" || m[1] == "X") && next < len(call.Args) {
				hex = append(hex, call.Args[next])
			}
			next++
		}
		return hex
	}
	return nil
}

func printsItself(t types.Type) bool {
	if t == nil {
		return false
	}
	for _, name := range []string{"String", "Error"} {
		if obj, _, _ := types.LookupFieldOrMethod(t, false, nil, name); obj != nil {
			if _, ok := obj.(*types.Func); ok {
				return true
			}
		}
	}
	return false
}
