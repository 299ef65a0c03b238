package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
)

// The scripts ask ccrun itself what may follow, so they never go stale.
const (
	bashCompletion = `_ccrun() {
	local cur="${COMP_WORDS[COMP_CWORD]}" words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ "$cur" == -* ]] && words+=("$cur")
	COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _ccrun ccrun
`
	zshCompletion = `#compdef ccrun
_ccrun() {
	local -a opts
	local cur=${words[-1]}
	if [[ "$cur" == -* ]]; then
		opts=("${(@f)$(${words[@]:0:#words[@]-1} ${cur} --generate-bash-completion 2>/dev/null)}")
	else
		opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
	fi
	if [[ -n "${opts[1]}" ]]; then _describe 'values' opts; else _files; fi
}
compdef _ccrun ccrun
`
	fishCompletion = `complete -c ccrun -f -a '(set -l w (commandline -opc) (commandline -ct); $w --generate-bash-completion 2>/dev/null)'
`
)

func completionCommand() *cli.Command {
	scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	return &cli.Command{
		Name:        "completion",
		Usage:       "print a shell's completion script",
		ArgsUsage:   "bash|zsh|fish",
		Description: "Example:\n   ccrun completion bash >/etc/bash_completion.d/ccrun",
		Action: func(c *cli.Context) error {
			if err := face.Args(c, 1, 1, "bash, zsh or fish"); err != nil {
				return err
			}
			s, ok := scripts[c.Args().First()]
			if !ok {
				return face.Usagef("unknown shell %q: expected bash, zsh or fish", c.Args().First())
			}
			_, err := fmt.Fprint(c.App.Writer, s)
			return err
		},
	}
}
