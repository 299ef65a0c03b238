package kbs

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const modelDir = "../../docs/model"

func readDoc(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// framed is what function name frames, in order, innermost names alone.
func framed(t *testing.T, name string) (members []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "binding.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	src := readDoc(t, "binding.go")
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Name.Name != name {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "frame" {
				arg := src[call.Args[1].Pos()-1 : call.Args[1].End()-1]
				arg = regexp.MustCompile(`^\[\]byte\((.*)\)$|^binary\.BigEndian\.AppendUint16\(nil, (.*)\)$|^(.*)\[:\]$`).ReplaceAllString(arg, "$1$2$3")
				members = append(members, arg)
			}
			return true
		})
	}
	return members
}

// TestModelFields holds the model's messages against the program's and the
// documentation's.
func TestModelFields(t *testing.T) {
	model, protocol := readDoc(t, modelDir+"/ccrun.pv"), readDoc(t, "../../docs/protocol.md")
	words := map[string]string{
		"label": `"` + bindingLabel + `"`, "releaseLabel": `"` + releaseLabel + `"`, "workloadID": "workload id", "rd.Nonce": "nonce",
		"rd.TEEKey.KEM": "uint16 big-endian KEM", "rd.TEEKey.Public": "public", "rd.IdentityDigest": "identity digest", "rd.FooterDigest": "footer digest",
		"rd": "REPORT_DATA", "name": `"workload/" ‖ workload id ‖ "/key"`,
	}
	for name, x := range map[string]struct{ function, formula string }{
		"Binding":     {"binding", `REPORT_DATA = SHA-512`},
		"ReleaseInfo": {"info", `info = SHA-512`},
	} {
		members := framed(t, name)
		if want := "FIELDS " + name + ": " + strings.Join(members, " "); len(members) < 3 || !regexp.MustCompile(regexp.QuoteMeta(want)+`( \*\))?\n`).MatchString(model) {
			t.Errorf("the model has not the line %q", want)
		}
		declared := regexp.MustCompile(`fun ` + x.function + `\(([^)]*)\)`).FindStringSubmatch(model)
		if declared == nil || strings.Count(declared[1], ",")+1 != len(members) {
			t.Errorf("%s: the model has %v, the program frames %d members", name, declared, len(members))
		}
		var frames []string
		for _, m := range members {
			frames = append(frames, "frame("+words[m]+")")
		}
		at := strings.Index(protocol, x.formula)
		if at < 0 {
			t.Fatalf("the protocol's page has no %q", x.formula)
		}
		text, _, _ := strings.Cut(protocol[at:], "```")
		if flat := strings.Join(strings.Fields(text), " "); !strings.Contains(flat, strings.Join(frames, " ‖ ")) {
			t.Errorf("%s: the protocol's page says %q, the program frames %v", name, flat, frames)
		}
	}
}

var (
	checkMark   = regexp.MustCompile(`\(\* CHECK ([a-z ]+) \*\)$`)
	insteadMark = regexp.MustCompile(`^( *)\(\* INSTEAD ([a-z]+): (.*) \*\)$`)
	comment     = regexp.MustCompile(`(?s)\(\*.*?\*\)`)
)

// variant is the model without one check, as variant.sh makes it.
func variant(model, name string) string {
	var out []string
	for line := range strings.Lines(model) {
		line = strings.TrimSuffix(line, "\n")
		if m := checkMark.FindStringSubmatch(line); m != nil && slices.Contains(strings.Fields(m[1]), name) {
			continue
		}
		if m := insteadMark.FindStringSubmatch(line); m != nil && m[2] == name {
			line = m[1] + m[3]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n") + "\n"
}

// documented is README's table: for each variant what the queries answer.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|[^|]+\\|((?: (?:true|\\*\\*false\\*\\*) \\|)+)$").FindAllStringSubmatch(readDoc(t, modelDir+"/README.md"), -1) {
		all[m[1]] = strings.Fields(strings.NewReplacer("|", " ", "*", "").Replace(m[2]))
	}
	return all
}

// TestModelVariants: what README says of the variants is about checks that the
// model has, every query is refuted by some variant, and each variant is as well
// formed as can be told without ProVerif.
func TestModelVariants(t *testing.T) {
	model, table := readDoc(t, modelDir+"/ccrun.pv"), documented(t)
	names := map[string]bool{"base": true}
	for line := range strings.Lines(model) {
		line = strings.TrimSuffix(line, "\n")
		if m := checkMark.FindStringSubmatch(line); m != nil {
			for _, name := range strings.Fields(m[1]) {
				names[name] = true
			}
		}
		if m := insteadMark.FindStringSubmatch(line); m != nil {
			names[m[2]] = true
		}
		if strings.Contains(line, "(* CHECK ") != checkMark.MatchString(line) || strings.Contains(line, "(* INSTEAD ") != insteadMark.MatchString(line) {
			t.Errorf("a mark that marks nothing: %s", line)
		}
	}
	if got, want := slices.Sorted(maps.Keys(table)), slices.Sorted(maps.Keys(names)); !slices.Equal(got, want) {
		t.Fatalf("README's variants %v, the model's %v", got, want)
	}
	queries := len(regexp.MustCompile(`\(\* Q\d`).FindAllString(model, -1))
	refuted := map[int]bool{}
	for name, answers := range table {
		if len(answers) != queries || queries < 12 {
			t.Fatalf("%s: %d answers, the model has %d queries", name, len(answers), queries)
		}
		for i, a := range answers {
			refuted[i] = refuted[i] || a == "false"
		}
		if differs := slices.Contains(answers, "false"); differs == (name == "base") || (variant(model, name) == model) != (name == "base") {
			t.Errorf("%s: answers %v", name, answers)
		}
		if err := wellFormed(variant(model, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range queries {
		if !refuted[i] {
			t.Errorf("no variant refutes Q%d", i+1)
		}
	}
	for _, broken := range []string{strings.Replace(model, "pk(sk)", "pk(sk", 1), strings.Replace(model, "out(c, n);", "out(c, nn);", 1), strings.Replace(model, "FIELDS", "*) nothing (*", 1)} {
		if wellFormed(broken) == nil {
			t.Error("a broken model is well formed")
		}
	}
}

const keywords = ` channel const data do else event fun if in inj_event let letfun new not or out phase process query reduc forall then type free private bitstring attacker inj `

// wellFormed checks that brackets match and that every name is declared
// somewhere.
func wellFormed(model string) error {
	text := comment.ReplaceAllString(model, " ")
	if strings.Contains(text, "(*") || strings.Contains(text, "*)") {
		return fmt.Errorf("a comment does not end, or does not begin")
	}
	var open []rune
	for _, r := range text {
		switch r {
		case '(', '[':
			open = append(open, r)
		case ')', ']':
			if len(open) == 0 || open[len(open)-1] != map[rune]rune{')': '(', ']': '['}[r] {
				return fmt.Errorf("a bracket that none opens")
			}
			open = open[:len(open)-1]
		case '.':
			if len(open) > 0 {
				return fmt.Errorf("a statement ends within brackets")
			}
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("a bracket that none closes")
	}
	declared := map[string]bool{}
	for _, m := range regexp.MustCompile(`\b(?:type|free|const|fun|event|letfun|let|new|query|reduc)\s+([A-Za-z0-9_, ]+?)\s*[:(.=;]|([A-Za-z0-9_, ]+?)\s*:|;\s*([a-z0-9]+)\(|\blet\s+\(`).FindAllStringSubmatch(text, -1) {
		for _, list := range m[1:] {
			for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
				declared[name] = true
			}
		}
	}
	for _, name := range regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`).FindAllString(text, -1) {
		if !declared[name] && !strings.Contains(keywords, " "+name+" ") {
			return fmt.Errorf("%s is declared nowhere", name)
		}
	}
	return nil
}

// TestModelIsProved has ProVerif answer every query of every variant.
func TestModelIsProved(t *testing.T) {
	proverif, err := exec.LookPath("proverif")
	if err != nil {
		t.Skip("TestModelIsProved needs proverif in the PATH")
	}
	model := readDoc(t, modelDir+"/ccrun.pv")
	for name, want := range documented(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "model.pv")
			if err := os.WriteFile(path, []byte(variant(model, name)), 0o600); err != nil {
				t.Fatal(err)
			}
			script, err := exec.Command("sh", modelDir+"/variant.sh", name).Output()
			if err != nil || !bytes.Equal(script, []byte(variant(model, name))) {
				t.Errorf("variant.sh makes another model: %v", err)
			}
			out, err := exec.Command(proverif, path).CombinedOutput()
			var got []string
			for _, m := range regexp.MustCompile(`(?m)^RESULT [^(].* (is true|is false|cannot be proved)\b`).FindAllStringSubmatch(string(out), -1) {
				got = append(got, strings.TrimPrefix(m[1], "is "))
			}
			for range regexp.MustCompile(`\(\* S\d`).FindAllString(model, -1) {
				want = append(want[:len(want):len(want)], "false")
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%v: %v, expected %v", err, got, want)
			}
		})
	}
}
