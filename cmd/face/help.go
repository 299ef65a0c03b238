package face

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// Columns of help text: as many as the terminal has, within reason.
const (
	leastColumns = 40
	mostColumns  = 100
)

// columns is 0 where standard output is no terminal: who reads it there is a
// program, or another pager's business.
func columns() int {
	n, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || n <= 0 {
		return 0
	}
	return min(max(n, leastColumns), mostColumns)
}

// wrapHelp has cli wrap the lines of help. cli keeps its printer in a variable
// of its package; Main sets it, once, before anything runs.
func wrapHelp() {
	width := columns()
	if width == 0 {
		return
	}
	cli.HelpPrinter = func(w io.Writer, templ string, data any) {
		var b bytes.Buffer
		cli.HelpPrinterCustom(&b, templ, data, nil)
		for line := range strings.Lines(b.String()) {
			fmt.Fprint(w, wrapped(line, width))
		}
	}
}

// wrapped breaks line where it is longer than width. What follows stands below
// the description of the flag or command that line begins with.
func wrapped(line string, width int) string {
	line = strings.TrimRight(line, " \n")
	indent := len(line) - len(strings.TrimLeft(line, " "))
	hang := indent
	if at := strings.Index(line[indent:], "  "); at >= 0 {
		gap := line[indent+at:]
		hang = indent + at + len(gap) - len(strings.TrimLeft(gap, " "))
	}
	if hang > width/2 {
		hang = indent + 6
	}
	var b strings.Builder
	for utf8.RuneCountInString(line) > width {
		cut := strings.LastIndex(string([]rune(line)[:width+1]), " ")
		if strings.TrimSpace(line[:max(cut, 0)]) == "" || cut <= hang {
			break // one long word
		}
		b.WriteString(strings.TrimRight(line[:cut], " ") + "\n")
		line = strings.Repeat(" ", hang) + strings.TrimLeft(line[cut:], " ")
	}
	return b.String() + line + "\n"
}
