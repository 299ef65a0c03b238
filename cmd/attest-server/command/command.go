// Package command is the command line of attest-server, shared with the
// simulation, which differs in the verifiers it adds.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/cmd/face"
)

// Program is what differs between attest-server and its simulation.
type Program struct {
	Name   string // e.g. "attest-server", or "ccrun-sim attest-server"
	Notice string // put into every help text and before every log line; may be empty
	// ServeFlags are further flags of serve, for Verifiers.
	ServeFlags []cli.Flag
	// Verifiers makes the verifiers to serve with; most start from Production.
	Verifiers func(*cli.Context, Endorsements) (map[kbs.TEE]verifier.Verifier, error)
}

// Endorsements is what the operator configured for verifiers.
type Endorsements struct {
	Supply     *verifier.Supply // never nil
	RequireCRL bool
}

// Production is the verifiers for real hardware: vendors' roots only.
func Production(e Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
	snp, err := verifier.NewSNP(verifier.SNPOptions{Endorsements: e.Supply, RequireCRL: e.RequireCRL})
	if err == nil {
		err = e.Supply.Watch(snp)
	}
	if err != nil {
		return nil, fmt.Errorf("setting up SNP verification: %w", err)
	}
	tdx, err := verifier.NewTDX(verifier.TDXOptions{Collateral: e.Supply})
	if err != nil {
		return nil, fmt.Errorf("setting up TDX verification: %w", err)
	}
	return map[kbs.TEE]verifier.Verifier{kbs.SNP: snp, kbs.TDX: tdx}, nil
}

// Commands is init, serve, token, audit, certs and the rest.
func (p Program) Commands() []*cli.Command {
	commands := []*cli.Command{p.initCommand(), p.serveCommand(), p.tokenCommand(), p.tenantCommand(), p.policyCommand(), p.backupCommand(), p.restoreCommand(), p.masterKeyCommand(), p.auditCommand(), p.certsCommand()}
	for _, c := range commands {
		c.OnUsageError = usageError
		if p.Notice != "" {
			c.Usage += " (" + p.Notice + ")"
		}
		if len(c.Subcommands) > 0 && c.Action == nil {
			c.Action = unknownSubcommand
		}
		for _, sub := range c.Subcommands {
			sub.OnUsageError = usageError
		}
	}
	Inherit(commands)
	return commands
}

// App is Commands as a program of its own.
func (p Program) App() *cli.App {
	return &cli.App{
		Name:                 p.Name,
		Usage:                "release disk keys to attested workloads, and to nobody else",
		Description:          "Example:\n   " + p.Name + " init --data /var/lib/attest-server --name keys.example.com\n   " + p.Name + " serve --data /var/lib/attest-server --listen :8443",
		EnableBashCompletion: true,
		HideVersion:          true,
		Suggest:              true,
		OnUsageError:         usageError,
		ExitErrHandler:       func(*cli.Context, error) {}, // main alone exits
		Flags:                LogFlags(),
		Before:               CheckLogFlags,
		Action:               unknownCommand,
		Commands:             p.Commands(),
	}
}

// Run is the main function of an App: it returns the exit status.
func Run(app *cli.App, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Report(os.Stderr, app.Name, app.RunContext(ctx, face.Intersperse(app, args)))
}

// usageMistake is an error of the command line: exit status 2.
type usageMistake struct{ err error }

func (e *usageMistake) Error() string { return e.err.Error() }
func (e *usageMistake) Unwrap() error { return e.err }
func (e *usageMistake) Hint() string  { return "see --help" }

// ExitCode is 2, for callers that report errors themselves.
func (e *usageMistake) ExitCode() int { return 2 }

func usage(format string, a ...any) error { return &usageMistake{fmt.Errorf(format, a...)} }

func usageError(_ *cli.Context, err error, _ bool) error { return &usageMistake{err} }

func unknownCommand(c *cli.Context) error {
	if c.NArg() == 0 {
		return cli.ShowAppHelp(c)
	}
	return usage("unknown command %q", c.Args().First())
}

func unknownSubcommand(c *cli.Context) error {
	if c.NArg() == 0 {
		return cli.ShowSubcommandHelp(c)
	}
	return usage("%s: unknown command %q", c.Command.Name, c.Args().First())
}

func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("%s: unexpected argument %q", c.Command.Name, c.Args().First())
	}
	return nil
}

// Report prints err as "NAME: what failed" and "NAME: hint: next step", and
// returns the exit status: 0, 1 for a failure, 2 for a usage error, 3 for
// Evidence that a policy refuses.
func Report(w io.Writer, name string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(w, "%s: %v\n", name, err)
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		fmt.Fprintf(w, "%s: hint: %s\n", name, h.Hint())
	}
	var e interface{ ExitCode() int }
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return 1
}

// The data directory's files.
const (
	storeName     = "store.db"
	caName        = "ca.pem"
	caKeyName     = "ca.key"
	serverName    = "server.pem"
	serverKeyName = "server.key"
)

func dataFlag() cli.Flag {
	return &cli.StringFlag{Name: "data", Value: "/var/lib/attest-server", Usage: "`DIR` with store, master key and TLS identity"}
}

// newLog logs to w. Under journald, which stamps lines itself, without time.
func newLog(w io.Writer, level, format, notice string) (*slog.Logger, error) {
	l, err := parseLevel(level)
	if err != nil {
		return nil, err
	}
	o := &slog.HandlerOptions{Level: l}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	var h slog.Handler
	switch format {
	case "text":
		h = slog.NewTextHandler(w, o)
	case "json":
		h = slog.NewJSONHandler(w, o)
	default:
		return nil, usage("--log-format %q: expected text or json", format)
	}
	log := slog.New(h)
	if notice != "" {
		log = log.With("notice", notice)
	}
	return log, nil
}

func inDir(dir, name string) string { return filepath.Join(dir, name) }
