package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// Bounds of expressions. Who registers a workload can have them evaluated at
// every attestation of it.
const (
	MaxExpressions      = 16   // of one policy or registration
	MaxExpressionLength = 2048 // characters
	maxHintLength       = 512  // bytes
	maxParserDepth      = 32
	maxNesting          = 2 // of all, exists, map, filter within one another
	// costLimit is in CEL's units, of which one is some 50 ns: 1 ms each.
	costLimit = 20_000
)

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// functions are those of CEL's standard library that expressions may call.
// Left out are matches, whose patterns claims could choose, and what needs
// time zones from the machine. What is here is pure.
var functions = []string{
	"_?_:_", "_&&_", "_||_", "!_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_",
	"_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_[_]", "@in", "@not_strictly_false",
	"size", "contains", "startsWith", "endsWith", "timestamp", "duration", "int", "uint", "string",
}

// Compiler compiles expressions. It is safe for concurrent use.
type Compiler struct{ env *cel.Env }

// NewCompiler makes a Compiler.
func NewCompiler() (*Compiler, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, fmt.Errorf("setting up CEL: %w", err)
	}
	subset := env.NewLibrarySubset()
	for _, name := range functions {
		subset.AddIncludedFunctions(env.NewFunction(name))
	}
	e, err := cel.NewCustomEnv(
		cel.CustomTypeAdapter(registry), cel.CustomTypeProvider(newProvider(registry)),
		cel.StdLib(cel.StdLibSubset(subset)),
		cel.EnableMacroCallTracking(),
		cel.Variable("claims", cel.ObjectType(rootType)),
		cel.Variable("now", cel.TimestampType),
		cel.Function("bitAnd", cel.Overload("bitAnd_uint_uint", []*cel.Type{cel.UintType, cel.UintType}, cel.UintType, cel.BinaryBinding(bitAnd))),
		cel.ParserExpressionSizeLimit(MaxExpressionLength), cel.ParserRecursionLimit(maxParserDepth),
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(maxNesting), cel.ValidateHomogeneousAggregateLiterals(),
			cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()))
	if err != nil {
		return nil, fmt.Errorf("setting up CEL: %w", err)
	}
	return &Compiler{e}, nil
}

func bitAnd(a, b ref.Val) ref.Val {
	x, ok := a.(types.Uint)
	y, ok2 := b.(types.Uint)
	if !ok || !ok2 {
		return types.NewErr("bitAnd: expected two uint")
	}
	return x & y
}

// expression is a compiled one. It implements verifier.Expression.
type expression struct {
	kbs.Expression
	level   string
	program cel.Program
}

// compile compiles e and refuses what is no rule: of another type than bool,
// about claims that do not exist, or true or false as CEL finds out without
// knowing any claim.
func (c *Compiler) compile(e kbs.Expression, level string) (*expression, error) {
	wrap := func(err error) error { return fmt.Errorf("expression %q: %w", e.Name, err) }
	switch {
	case !validName.MatchString(e.Name):
		return nil, wrap(errors.New("expected a name of up to 64 letters, digits, '-' and '_'"))
	case strings.TrimSpace(e.Expression) == "":
		return nil, wrap(errors.New("it is empty: nothing would be asked for"))
	case len(e.Expression) > MaxExpressionLength:
		return nil, wrap(fmt.Errorf("%d bytes, at most %d allowed", len(e.Expression), MaxExpressionLength))
	case len(e.Hint) > maxHintLength:
		return nil, wrap(fmt.Errorf("hint of %d bytes, at most %d allowed", len(e.Hint), maxHintLength))
	}
	ast, issues := c.env.Compile(e.Expression)
	if err := issues.Err(); err != nil {
		return nil, wrap(explain(err))
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, wrap(fmt.Errorf("its value is of type %s, expected bool", ast.OutputType()))
	}
	if cost, err := c.env.EstimateCost(ast, sizes{}); err != nil {
		return nil, wrap(err)
	} else if cost.Min > costLimit {
		return nil, wrap(fmt.Errorf("it costs at least %d steps, at most %d are allowed: it could never be evaluated", cost.Min, costLimit))
	}
	p, err := c.env.Program(ast, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptPartialEval))
	if err != nil {
		return nil, wrap(err)
	}
	if err := refuseConstant(p); err != nil {
		return nil, wrap(err)
	}
	return &expression{Expression: e, level: level, program: p}, nil
}

var (
	errNever  = errors.New("it is false whatever the claims are: nothing could match")
	errAlways = errors.New("it is true whatever the claims are: it would refuse nothing")
)

// refuseConstant evaluates with every claim unknown. What then has a value is
// no rule. What is constant only by the logic of comparisons, as x > 3 && x < 2,
// has no value then and is not found.
func refuseConstant(p cel.Program) error {
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
	return nil
}

// explain adds to CEL's messages where to look.
func explain(err error) error {
	s := err.Error()
	if strings.Contains(s, "undefined field") || strings.Contains(s, "undeclared reference") {
		return fmt.Errorf("%w: see the list of claims in docs/verification.md", err)
	}
	return err
}

// sizes lets CEL estimate with what it knows itself.
type sizes struct{}

func (sizes) EstimateSize(checker.AstNode) *checker.SizeEstimate { return nil }
func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// Apply implements verifier.Expression. Anything but true is a refusal.
func (x *expression) Apply(c *verifier.Claims, at time.Time) verifier.Rule {
	r := verifier.Rule{Rule: verifier.CELRule(x.Name), Expected: x.Expression.Expression}
	v, _, err := x.program.Eval(map[string]any{"claims": view(c), "now": at})
	switch {
	case err != nil:
		r.Got = "error: " + err.Error()
	case v == types.True:
		r.Got, r.Pass = "true", true
		return r
	case v == types.False:
		r.Got = "false"
	default:
		r.Got = fmt.Sprintf("neither true nor false but %s", v.Type().TypeName())
	}
	r.Hint, r.Level = x.Hint, x.level
	if r.Hint == "" {
		r.Hint = "the evidence is not what this expression asks for: compare it with the claims"
	}
	return r
}
