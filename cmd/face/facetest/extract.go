package facetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Documents is the lines of program in the text files below root whose names
// match one of patterns, as path.Match has it, of the base or of the path.
func Documents(t *testing.T, root, program string, patterns ...string) (lines []Line) {
	t.Helper()
	each(t, root, func(name, text string) {
		for _, p := range patterns {
			whole, _ := path.Match(p, name)
			base, _ := path.Match(p, path.Base(name))
			if whole || base {
				lines = append(lines, inText(name, text, program)...)
				return
			}
		}
	})
	return lines
}

// Sources is the lines of program that stand between backquotes in the strings
// of the Go files below root: hints, mostly. Tests' do not count.
func Sources(t *testing.T, root, program string) (lines []Line) {
	t.Helper()
	each(t, root, func(name, text string) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "tests/") || strings.Contains(name, "facetest") {
			return
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING && l.Value[0] == '"' {
				if s, err := strconv.Unquote(l.Value); err == nil {
					lines = append(lines, spans(set.Position(l.Pos()).String(), s, program)...)
				}
			}
			return true
		})
	})
	return lines
}

func each(t *testing.T, root string, read func(name, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if info, err := d.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		read(filepath.ToSlash(name), string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	span    = regexp.MustCompile("`([^`]+)`")
	inQuote = regexp.MustCompile(`"([^"]+)"`)
	// starts is what a shell begins another command after.
	starts = regexp.MustCompile(`\|\||&&|[|;!({]|\$\(|^Exec[A-Za-z]*=[-+!@:]*`)
	assign = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*=`)
)

// inText is what stands in a document: lines of code, and spans of code in what
// is not.
func inText(name, text, program string) (lines []Line) {
	var prose strings.Builder
	fenced := false
	all := strings.Split(text, "\n")
	for i := 0; i < len(all); i++ {
		at, line := i, all[i]
		prose.WriteByte('\n')
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		code := fenced || strings.HasPrefix(line, "   ") || !strings.HasSuffix(name, ".md")
		if !code {
			prose.WriteString(line)
			continue
		}
		for strings.HasSuffix(line, `\`) && i+1 < len(all) {
			i++
			prose.WriteByte('\n')
			line = strings.TrimSuffix(line, `\`) + " " + strings.TrimSpace(all[i])
		}
		where := name + ":" + strconv.Itoa(at+1)
		lines = append(lines, ofShell(where, line, program)...)
		if !fenced {
			lines = append(lines, spans(where, line, program)...)
		}
	}
	return append(lines, spans(name, strings.TrimPrefix(prose.String(), "\n"), program)...)
}

// spans is what stands between backquotes.
func spans(name, text, program string) (lines []Line) {
	for _, at := range span.FindAllStringSubmatchIndex(text, -1) {
		where := name + ":" + strconv.Itoa(1+strings.Count(text[:at[0]], "\n"))
		if words := shellWords(text[at[2]:at[3]]); begins(words, program) {
			lines = append(lines, Line{where, words[1:]})
		}
	}
	return lines
}

// quoted is what stands between quotation marks, as in the usage of flags,
// where backquotes mean something else.
func quoted(name, text, program string) (lines []Line) {
	for _, m := range inQuote.FindAllStringSubmatch(text, -1) {
		if words := shellWords(m[1]); begins(words, program) {
			lines = append(lines, Line{name, words[1:]})
		}
	}
	return lines
}

// ofShell is the program's commands in one line for a shell.
func ofShell(where, line, program string) (lines []Line) {
	line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
	from := append([][]int{{0, 0}}, starts.FindAllStringIndex(line, -1)...)
	for _, at := range from {
		words := shellWords(line[at[1]:])
		for len(words) > 0 && (assign.MatchString(words[0]) || slices.Contains([]string{"sudo", "exec", "env", "eval", "if", "then", "do", "out"}, words[0])) {
			words = words[1:]
		}
		if begins(words, program) {
			lines = append(lines, Line{where, words[1:]})
		}
	}
	return lines
}

func begins(words []string, program string) bool {
	return len(words) > 0 && (words[0] == program || strings.HasPrefix(words[0], "/") && path.Base(words[0]) == program)
}

// shellWords is the words of one simple command, up to whatever ends it.
func shellWords(s string) (words []string) {
	var word strings.Builder
	open := false
	end := func() {
		if open {
			words = append(words, word.String())
		}
		word.Reset()
		open = false
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			word.WriteByte(s[i])
			open = true
		case c == '\'' || c == '"':
			open = true
			j := strings.IndexByte(s[i+1:], c)
			if j < 0 {
				j = len(s) - i - 1
			}
			word.WriteString(s[i+1 : min(i+1+j, len(s))])
			i += j + 1
		case c == '$' && strings.HasPrefix(s[i:], "$("):
			depth++
			open = true
			i++
		case c == ')' && depth > 0:
			depth--
		case depth > 0: // another command's
		case c == ' ' || c == '\t' || c == '\n':
			end()
		case c == '#' && !open, strings.IndexByte(";&<>)`", c) >= 0, c == '|' && (!open || i+1 == len(s) || s[i+1] == ' '):
			if c == '<' || c == '>' { // 2>file
				if w := word.String(); w == "1" || w == "2" {
					open = false
				}
			}
			end()
			return words
		default:
			word.WriteByte(c)
			open = true
		}
	}
	end()
	return words
}

// Texts are patterns of the files that users read or copy from.
func Texts() []string {
	return []string{"*.md", "*.service", "*.conf", "*.toml", "*.container", "examples/*", "packaging/*"}
}

// Help is the lines of program in the help of its own commands.
func Help(app *cli.App, program string) (lines []Line) {
	lines = append(lines, inText("help", app.Description, program)...)
	var walk func(string, []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			where := path + " " + c.Name
			lines = append(lines, inText(where, c.Description, program)...)
			lines = append(lines, spans(where, c.Usage, program)...)
			for _, f := range c.Flags {
				if d, ok := f.(cli.DocGenerationFlag); ok {
					lines = append(lines, quoted(where, d.GetUsage(), program)...)
				}
			}
			walk(where, c.Subcommands)
		}
	}
	walk(program+" --help:", app.Commands)
	return lines
}
