package measure

import (
	"errors"
	"slices"
	"strings"
)

// ErrACPI reports a machine whose kernel would run what the host wrote into
// ACPI tables: code with access to all of the guest's memory, which no SNP
// digest covers.
var ErrACPI = errors.New("the kernel would run the host's ACPI code, which nothing measures")

// StopsACPI is what belongs on the command line of a QEMU machine. Its kernel
// then never loads the tables' code, but finds its processors; `acpi=off` also
// stops the code, and all processors but the first.
const StopsACPI = "initcall_blacklist=acpi_init"

// stopsACPI reads a command line as the kernel does (lib/cmdline.c, next_arg),
// but knows the two parameters in one spelling each: what is written otherwise
// counts as not said. Behind "--" stand init's words.
func stopsACPI(cmdline string) bool {
	stopped := false
	for _, w := range kernelWords(cmdline) {
		name, value, _ := strings.Cut(w, "=")
		switch {
		case w == "--":
			return stopped
		case name == "acpi" && value == "force":
			return false // undoes acpi=off, and is put beside nothing for a good reason
		case w == "acpi=off", name == "initcall_blacklist" && slices.Contains(strings.Split(value, ","), "acpi_init"):
			stopped = true
		}
	}
	return stopped
}

// kernelWords splits at white space outside of double quotes, as the kernel
// does. Quotes stay in the words.
func kernelWords(cmdline string) []string {
	quoted := false
	return strings.FieldsFunc(cmdline, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && strings.ContainsRune(" \t\n\v\f\r", r)
	})
}
