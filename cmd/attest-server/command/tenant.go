package command

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func (p Program) tenantCommand() *cli.Command {
	return &cli.Command{
		Name:  "tenant",
		Usage: "part the server among owners who learn nothing of one another",
		Description: "A tenant's workload ids begin with its name and a dot, its resource repositories too. Works on DIR\n" +
			"itself, also while the server runs. Needs no master key.\n\nExample:\n   " +
			p.Name + " tenant set acme --max-workloads 50 && " + p.Name + " token create --role publisher --tenant acme",
		Subcommands: []*cli.Command{
			{
				Name: "set", Usage: "make a tenant, or change its quotas", ArgsUsage: "NAME",
				Description: "Example:\n   " + p.Name + " tenant set acme --max-workloads 50 --max-resources 20",
				Flags: []cli.Flag{
					configFlag(), dataFlag(),
					&cli.Int64Flag{Name: "max-workloads", Value: 100, Usage: "`NUMBER` of workloads it may register"},
					&cli.Int64Flag{Name: "max-resources", Value: 100, Usage: "`NUMBER` of resources it may set"},
				},
				Action: onStore(1, 1, "NAME", setTenant),
			},
			{
				Name: "policy", Usage: "show, set or remove what is asked of all the tenant's workloads", ArgsUsage: "NAME [FILE]",
				Description: "FILE is JSON as `policy check --defaults` wants it. It holds at once, beside the server's own\n" +
					"([policy] in its configuration) and the workload's rules: the strictest wins.\n\nExample:\n   " +
					p.Name + " tenant policy acme acme-policy.json",
				Flags:  []cli.Flag{configFlag(), dataFlag(), &cli.BoolFlag{Name: "remove", Usage: "leave the tenant without a policy"}},
				Action: tenantPolicy,
			},
			{
				Name: "ls", Usage: "list tenants with their quotas and what they use",
				Description: "Example:\n   " + p.Name + " tenant ls --format json",
				Flags:       []cli.Flag{configFlag(), dataFlag(), face.ListFormatFlag()},
				Action:      onStore(0, 0, "", listTenants),
			},
			{
				Name: "rm", Usage: "remove a tenant that has nothing left, and revoke its tokens", ArgsUsage: "NAME",
				Description: "Nothing of it is left to a later tenant of that name. With --config it refuses while the\n" +
					"configuration gives a client certificate to it.\n\nExample:\n   " + p.Name + " tenant rm acme --config /etc/attest-server/attest-server.toml",
				Flags:  []cli.Flag{configFlag(), dataFlag()},
				Action: onStore(1, 1, "NAME", removeTenant),
			},
		},
	}
}

func setTenant(c *cli.Context, s *store.DB) error {
	err := s.SetTenant(c.Context, c.Args().First(), c.Int64("max-workloads"), c.Int64("max-resources"), "local")
	return hint.With(err, "for example: `attest-server tenant set acme --max-workloads 100`")
}

// removeTenant also looks at the configuration, if it is told of it: a server
// that starts anew with it would give the certificate to a later tenant of the
// name.
func removeTenant(c *cli.Context, s *store.DB) error {
	name := c.Args().First()
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	for _, x := range cfg.clients() {
		if x.Tenant == name {
			return hint.With(fmt.Errorf("removing tenant %s: the configuration gives client certificate %s to it", name, x.Subject), "take it from `clients` and reload the server first")
		}
	}
	return hint.With(s.RemoveTenant(c.Context, name, "local"), "`attest-server tenant ls` lists the tenants, with what they have")
}

func listTenants(c *cli.Context, s *store.DB) error {
	list, err := s.Tenants(c.Context)
	if err != nil {
		return err
	}
	return face.List(c, list, func(t store.Tenant) string { return t.Name }, printTenants)
}

func printTenants(out io.Writer, list []store.Tenant) error {
	w := face.Table(out)
	fmt.Fprintln(w, "TENANT\tWORKLOADS\tRESOURCES\tCREATED")
	for _, t := range list {
		fmt.Fprintf(w, "%s\t%d of %d\t%d of %d\t%s\n", t.Name, t.Workloads, t.MaxWorkloads, t.Resources, t.MaxResources, t.CreatedAt.Format(time.RFC3339))
	}
	return w.Flush()
}
