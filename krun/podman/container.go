package podman

import (
	nettypes "github.com/containers/common/libnetwork/types"
	"github.com/containers/podman/v5/pkg/specgen"
)

// Container is what `ccrun run` asks Podman for.
type Container struct {
	Image       string
	Name        string
	Pull        string // missing, always, never or newer
	Network     string
	Ports       []nettypes.PortMapping
	Annotations map[string]string
	Labels      map[string]string
	Remove      bool
	// StopSeconds is how long the workload has to stop; 0: as Podman has it.
	StopSeconds uint
	// Resume starts the container of that name again, with what it wrote, if it
	// was made of the same image and flags; else it is made anew.
	Resume bool
}

func (c *Container) spec(runtime string) *specgen.SpecGenerator {
	spec := specgen.NewSpecGenerator(c.Image, false)
	spec.Name = c.Name
	spec.OCIRuntime = runtime // ignored by Podman up to 5.8; harmless
	spec.Annotations = c.Annotations
	spec.Labels = c.Labels
	spec.PortMappings = c.Ports
	remove := c.Remove
	spec.Remove = &remove
	if c.StopSeconds > 0 {
		seconds := c.StopSeconds
		spec.StopTimeout = &seconds
	}
	if c.Network != "" {
		setNetwork(spec, c.Network)
	}
	return spec
}

func setNetwork(spec *specgen.SpecGenerator, network string) {
	ns, nets, opts, err := specgen.ParseNetworkFlag([]string{network})
	if err != nil {
		return // checked by CheckNetwork before
	}
	spec.NetNS = ns
	spec.Networks = nets
	spec.NetworkOptions = opts
}

// CheckNetwork says whether network is a value Podman's --network knows.
func CheckNetwork(network string) error {
	if network == "" {
		return nil
	}
	_, _, _, err := specgen.ParseNetworkFlag([]string{network})
	return err
}
