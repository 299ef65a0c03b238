package krun

import (
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func TestNetwork(t *testing.T) {
	var none *Network
	if none.ModeFor(kbs.SNP) != NetworkTSI || none.ModeFor(kbs.Sample) != NetworkVirtio || none.Resolvers() != nil || none.Validate(kbs.SNP) != nil {
		t.Error("no Network is not the machine's own")
	}
	for _, c := range []struct {
		n   Network
		tee kbs.TEE
		ok  bool
	}{
		{Network{}, kbs.SNP, true},
		{Network{Mode: NetworkNone}, kbs.SNP, true},
		{Network{Mode: NetworkNone}, kbs.Sample, true},
		{Network{Mode: NetworkTSI}, kbs.SNP, true},
		{Network{Mode: NetworkTSI}, kbs.Sample, false},
		{Network{Mode: NetworkVirtio}, kbs.SNP, false},
		{Network{Mode: "host"}, kbs.SNP, false},
		{Network{DNS: []string{"9.9.9.9", "2620:fe::fe"}}, kbs.SNP, true},
		{Network{DNS: []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"}}, kbs.SNP, false},
		{Network{DNS: []string{"dns.example"}}, kbs.SNP, false},
		{Network{DNS: []string{"fe80::1%eth0"}}, kbs.SNP, false},
		{Network{DNS: []string{"2620:FE::FE"}}, kbs.SNP, false},
		{Network{DNS: []string{"0.0.0.0"}}, kbs.SNP, false},
		{Network{DNS: []string{"1.1.1.1\nsearch evil"}}, kbs.SNP, false},
	} {
		if err := c.n.Validate(c.tee); (err == nil) != c.ok {
			t.Errorf("%+v for %s: %v", c.n, c.tee, err)
		}
	}
}
