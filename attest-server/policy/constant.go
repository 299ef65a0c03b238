package policy

import (
	"errors"
	"fmt"
	"math"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// Whether an expression can be true is undecidable in practice. What is found
// here is (1) what CEL itself can evaluate without knowing any claim, and (2)
// what follows from the logic that ties comparisons together: they are taken
// for propositions, of which those about one value must agree (it equals one
// constant at most, integers lie in order), and every assignment is tried.
// Both are sound: what is refused as false is true for no claims at all, and
// what is refused as true is false for none (it may fail for want of a claim;
// who means that says has()).

// maxAtoms bounds the assignments to 2^10.
const maxAtoms = 10

var (
	errNever  = errors.New("it is false whatever the claims are: nothing could match")
	errAlways = errors.New("it is true whatever the claims are: it would refuse nothing")
)

func refuseConstant(p cel.Program, a *cel.Ast) error {
	unknown, err := cel.PartialVars(map[string]any{}, cel.AttributePattern("claims"), cel.AttributePattern("now"))
	if err != nil {
		return err
	}
	v, _, err := p.Eval(unknown)
	switch {
	case err != nil:
		return fmt.Errorf("it fails whatever the claims are: %w", err)
	case v == types.True:
		return errAlways
	case v == types.False:
		return errNever
	}
	f := &formula{info: a.NativeRep().SourceInfo(), index: map[string]int{}}
	root := f.parse(a.NativeRep().Expr())
	if len(f.atoms) > maxAtoms {
		return nil
	}
	canBeTrue, canBeFalse := f.outcomes(root)
	switch {
	case !canBeTrue:
		return errNever
	case !canBeFalse:
		return errAlways
	}
	return nil
}

// formula is an expression's propositions.
type formula struct {
	info  *ast.SourceInfo
	atoms []atom
	index map[string]int
	fresh int
}

// atom is a comparison with a constant, or something else that is true or
// false.
type atom struct {
	subject  string // what is compared; empty for something else
	less     bool   // subject < constant; otherwise subject == constant
	constant any    // int64 or string
	unsigned bool   // subject is never negative
}

// node is a formula's value under an assignment of its atoms.
type node func(assignment uint) bool

func constant(b bool) node { return func(uint) bool { return b } }

func not(n node) node { return func(a uint) bool { return !n(a) } }

func (f *formula) parse(e ast.Expr) node {
	if e.Kind() == ast.LiteralKind && e.AsLiteral().Type() == types.BoolType {
		return constant(e.AsLiteral() == types.True)
	}
	if e.Kind() != ast.CallKind {
		return f.other(e)
	}
	args := e.AsCall().Args()
	switch e.AsCall().FunctionName() {
	case operators.LogicalNot:
		return not(f.parse(args[0]))
	case operators.LogicalAnd, operators.LogicalOr:
		and := e.AsCall().FunctionName() == operators.LogicalAnd
		var all []node
		for _, x := range args {
			all = append(all, f.parse(x))
		}
		return func(a uint) bool {
			for _, n := range all {
				if n(a) != and {
					return !and
				}
			}
			return and
		}
	case operators.Conditional:
		if_, then, else_ := f.parse(args[0]), f.parse(args[1]), f.parse(args[2])
		return func(a uint) bool {
			if if_(a) {
				return then(a)
			}
			return else_(a)
		}
	case operators.Equals:
		return f.equal(args[0], args[1])
	case operators.NotEquals:
		return not(f.equal(args[0], args[1]))
	case operators.Less:
		return f.less(args[0], args[1])
	case operators.Greater:
		return f.less(args[1], args[0])
	case operators.LessEquals:
		return not(f.less(args[1], args[0]))
	case operators.GreaterEquals:
		return not(f.less(args[0], args[1]))
	}
	return f.other(e)
}

func (f *formula) equal(a, b ast.Expr) node {
	x, y := f.text(a), f.text(b)
	if x == y {
		return constant(true)
	}
	if k, ok := literal(a); ok {
		return f.atom(y+" == "+x, atom{subject: y, constant: k, unsigned: f.isClaim(b)})
	}
	if k, ok := literal(b); ok {
		return f.atom(x+" == "+y, atom{subject: x, constant: k, unsigned: f.isClaim(a)})
	}
	return f.atom(min(x, y)+" == "+max(x, y), atom{})
}

// less is a < b. With an integer constant on the left, b > k is !(b < k+1).
func (f *formula) less(a, b ast.Expr) node {
	x, y := f.text(a), f.text(b)
	if x == y {
		return constant(false)
	}
	if k, ok := literal(b); ok {
		if n, isInt := k.(int64); isInt {
			return f.atom(fmt.Sprint(x, " < ", n), atom{subject: x, less: true, constant: n, unsigned: f.isClaim(a)})
		}
	}
	if k, ok := literal(a); ok {
		if n, isInt := k.(int64); isInt && n < math.MaxInt64 {
			return not(f.atom(fmt.Sprint(y, " < ", n+1), atom{subject: y, less: true, constant: n + 1, unsigned: f.isClaim(b)}))
		}
	}
	return f.atom(x+" < "+y, atom{})
}

func (f *formula) other(e ast.Expr) node { return f.atom(f.text(e), atom{}) }

func (f *formula) atom(key string, a atom) node {
	i, ok := f.index[key]
	if !ok {
		i = len(f.atoms)
		f.index[key], f.atoms = i, append(f.atoms, a)
	}
	if i > maxAtoms {
		i = maxAtoms // too many: nobody will ask
	}
	return func(assignment uint) bool { return assignment&(1<<i) != 0 }
}

// isClaim says whether e is a claim as it is. No integer among them is
// negative.
func (f *formula) isClaim(e ast.Expr) bool {
	for e.Kind() == ast.SelectKind {
		e = e.AsSelect().Operand()
	}
	return e.Kind() == ast.IdentKind && e.AsIdent() == "claims"
}

// text is e in one spelling; a new one each time where there is none.
func (f *formula) text(e ast.Expr) string {
	s, err := cel.ExprToString(e, f.info)
	if err != nil {
		f.fresh++
		return fmt.Sprintf("?%d", f.fresh)
	}
	return s
}

func literal(e ast.Expr) (any, bool) {
	if e.Kind() != ast.LiteralKind {
		return nil, false
	}
	switch v := e.AsLiteral().(type) {
	case types.Int:
		return int64(v), true
	case types.String:
		return string(v), true
	}
	return nil, false
}

// outcomes tries every assignment that does not contradict itself.
func (f *formula) outcomes(root node) (canBeTrue, canBeFalse bool) {
	for a := range uint(1) << len(f.atoms) {
		if !f.possible(a) {
			continue
		}
		if root(a) {
			canBeTrue = true
		} else {
			canBeFalse = true
		}
	}
	return canBeTrue, canBeFalse
}

// possible says whether some values fit the assignment, as far as that is
// known here.
func (f *formula) possible(assignment uint) bool {
	subjects := map[string]*values{}
	for i, a := range f.atoms {
		if a.subject == "" {
			continue
		}
		v := subjects[a.subject]
		if v == nil {
			v = &values{low: math.MinInt64, high: math.MaxInt64, not: map[any]bool{}}
			subjects[a.subject] = v
		}
		v.narrow(a, assignment&(1<<i) != 0)
	}
	for _, v := range subjects {
		if !v.some() {
			return false
		}
	}
	return true
}

// values is what one value can still be.
type values struct {
	low, high int64 // both included
	equals    []any
	not       map[any]bool
}

func (v *values) narrow(a atom, holds bool) {
	n, _ := a.constant.(int64)
	switch {
	case a.less && holds:
		v.high = min(v.high, n-1)
	case a.less:
		v.low = max(v.low, n)
	case holds:
		v.equals = append(v.equals, a.constant)
	default:
		v.not[a.constant] = true
	}
	if _, isInt := a.constant.(int64); isInt && a.unsigned {
		v.low = max(v.low, 0)
	}
}

func (v *values) some() bool {
	if v.low > v.high {
		return false
	}
	for _, e := range v.equals {
		n, isInt := e.(int64)
		if e != v.equals[0] || v.not[e] || isInt && (n < v.low || n > v.high) {
			return false
		}
	}
	// A range that is ruled out one by one.
	if len(v.equals) == 0 && v.high-v.low >= 0 && v.high-v.low < maxAtoms {
		for n := v.low; n <= v.high; n++ {
			if !v.not[n] {
				return true
			}
		}
		return false
	}
	return true
}
