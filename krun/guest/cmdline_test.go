package guest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun"
)

func TestParseCommandLine(t *testing.T) {
	for _, c := range []struct {
		line    string
		debug   bool
		address string // "": no network
		gateway string
		dns     string
		fails   string
	}{
		{line: ""},
		{line: "console=ttyS0 quiet panic=-1\n"},
		{line: "ccrun.debug quiet", debug: true},
		{line: "quiet ccrun.net=10.0.2.15/24,10.0.2.2,10.0.2.3", address: "10.0.2.15/24", gateway: "10.0.2.2", dns: "10.0.2.3"},
		{line: "ccrun.net=10.0.2.15/24,,", address: "10.0.2.15/24"},
		{line: "ccrun.net=fd00::2/64,fd00::1,10.0.0.1", address: "fd00::2/64", gateway: "fd00::1", dns: "10.0.0.1"},
		{line: "ccrun.net=10.0.2.15/24,10.0.2.2", fails: "expected ADDRESS/PREFIX,GATEWAY,DNS"},
		{line: "ccrun.net=10.0.2.15,10.0.2.2,", fails: "address"},
		{line: "ccrun.net=10.0.2.15/33,10.0.2.2,", fails: "address"},
		{line: "ccrun.net=10.0.2.15/24,fd00::1,", fails: "family"},
		{line: "ccrun.net=10.0.2.15/24,10.0.2.2,x", fails: "DNS server"},
		{line: "ccrun.net=10.0.2.15/24,10.0.2.2,fe80::1%eth0", fails: "zone"},
		{line: "ccrun.net=1.1.1.1/8,, ccrun.net=1.1.1.2/8,,", fails: "twice"},
		{line: "ccrun.shell", fails: "unknown option"},
		{line: "ccrun.debug=1", fails: "unknown option"},
		{line: strings.Repeat("a", maxCommandLine+1), fails: "at most"},
	} {
		o, err := parseCommandLine(c.line)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%.60q: error %v, expected %q", c.line, err, c.fails)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.line, err)
			continue
		}
		if o.debug != c.debug || (o.network != nil) != (c.address != "") {
			t.Errorf("%q: got %+v", c.line, o)
			continue
		}
		if o.network != nil && (o.network.address.String() != c.address || text(o.network.gateway) != c.gateway || text(o.network.dns) != c.dns) {
			t.Errorf("%q: got %+v", c.line, *o.network)
		}
	}
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func FuzzParseCommandLine(f *testing.F) {
	f.Add("quiet ccrun.debug ccrun.net=10.0.2.15/24,10.0.2.2,10.0.2.3")
	f.Add("ccrun.net=fd00::2/64,fd00::1,")
	f.Add("ccrun.net=,,")
	f.Fuzz(func(t *testing.T, line string) {
		o, err := parseCommandLine(line)
		if err != nil {
			if o.network != nil || o.debug {
				t.Fatalf("%q: options %+v beside error %v", line, o, err)
			}
			return
		}
		if n := o.network; n != nil {
			again, err := parseNetwork(n.address.String() + "," + text(n.gateway) + "," + text(n.dns))
			if err != nil || *again != *n {
				t.Fatalf("%q: %+v reads back as %+v, %v", line, n, again, err)
			}
			b := &boot{network: n, identity: &krun.Identity{}}
			if text := b.resolvConf(); n.dns.IsValid() && strings.ContainsAny(text[:len(text)-1], "\n\r%") {
				t.Fatalf("%q: resolv.conf %q", line, text)
			}
		}
	})
}
