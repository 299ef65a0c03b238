package face

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// The scripts ask the program itself what may follow, so they never go stale.
const (
	bashCompletion = `_FUNCTION() {
	local IFS=$'\n' cur="${COMP_WORDS[COMP_CWORD]}"
	COMPREPLY=($(compgen -W "$(PROGRAM __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _FUNCTION PROGRAM
`
	zshCompletion = `#compdef PROGRAM
_FUNCTION() {
	local -a found
	found=("${(@f)$(PROGRAM __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
if [[ "${funcstack[1]}" == _FUNCTION ]]; then _FUNCTION "$@"; else compdef _FUNCTION PROGRAM; fi
`
	fishCompletion = `function __FUNCTION_complete
	set -l before (commandline -opc)
	set -e before[1]
	PROGRAM __complete $before (commandline -ct) 2>/dev/null
end
complete -c PROGRAM -a '(__FUNCTION_complete)'
`
)

func completionCommand(name string) *cli.Command {
	scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	return &cli.Command{
		Name:        "completion",
		Usage:       "print a shell's completion script",
		ArgsUsage:   "bash|zsh|fish",
		Description: "Example:\n   " + name + " completion bash >/etc/bash_completion.d/" + name,
		Action: func(c *cli.Context) error {
			if err := Args(c, 1, 1, "bash, zsh or fish"); err != nil {
				return err
			}
			s, ok := scripts[c.Args().First()]
			if !ok {
				return Usagef("unknown shell %q: expected bash, zsh or fish", c.Args().First())
			}
			word := strings.ReplaceAll(name, "-", "_")
			_, err := io.WriteString(c.App.Writer, strings.NewReplacer("FUNCTION", word, "PROGRAM", name).Replace(s))
			return err
		},
	}
}
