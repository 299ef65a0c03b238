package machine

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func join(ports []Port) string {
	var all []string
	for _, p := range ports {
		all = append(all, p.String())
	}
	return strings.Join(all, " ")
}

func TestForwards(t *testing.T) {
	for s, want := range map[string]string{
		"":                         "",
		"80/tcp":                   "80/tcp",
		"80/tcp,53/udp":            "80/tcp 53/udp",
		"80/tcp 53/udp":            "80/tcp 53/udp",
		" 80/tcp, 80/udp ":         "80/tcp 80/udp",
		"80/tcp,80/tcp":            "80/tcp",
		"65535/tcp,1/udp,2/udp":    "65535/tcp 1/udp 2/udp",
		strings.Repeat(" ", 1<<20): "",
	} {
		ports, warnings := Forwards(SplitPorts(s))
		if join(ports) != want || len(warnings) != 0 {
			t.Errorf("%.40q: %v %q", s, ports, warnings)
		}
	}
	for _, s := range []string{"80", "0/tcp", "65536/tcp", "080/tcp", "+80/tcp", "80/sctp", "80-90/tcp",
		"8080:80/tcp", "80/tcp/", "guestfwd=tcp:1.2.3.4:1-cmd:id", "80/TCP"} {
		if ports, warnings := Forwards([]string{s, "7/tcp"}); join(ports) != "7/tcp" || len(warnings) != 1 {
			t.Errorf("%.40q: %v %q", s, ports, warnings)
		}
	}
	var many []string
	for i := range 2000 {
		many = append(many, Port{Number: uint16(i + 1), Protocol: "tcp"}.String())
	}
	if ports, warnings := Forwards(many); len(ports) != maxPorts || len(warnings) != 1 || len(warnings[0]) > 400 {
		t.Errorf("%d of many ports, %q", len(ports), warnings)
	}
}

func FuzzForwards(f *testing.F) {
	f.Add("80/tcp,53/udp")
	f.Add("0/tcp x")
	f.Fuzz(func(t *testing.T, s string) {
		ports, _ := Forwards(SplitPorts(s))
		for _, p := range ports {
			if p.Validate() != nil {
				t.Fatalf("invalid port %v", p)
			}
		}
		if again, warnings := Forwards(strings.Fields(join(ports))); join(again) != join(ports) || len(warnings) != 0 {
			t.Errorf("%v became %v (%q)", ports, again, warnings)
		}
	})
}

func TestControlMessages(t *testing.T) {
	for line, want := range map[string]message{
		"ready": {ready: true}, "exit 0": {exit: 0}, "exit 255": {exit: 255},
	} {
		if got, err := parseMessage(line); err != nil || got != want {
			t.Errorf("%q: %+v %v", line, got, err)
		}
	}
	for _, line := range []string{"", "exit", "exit ", "exit 256", "exit -1", "exit 01", "exit 1 ", "READY", "ready\r", "signal 9", "exit 1\x00"} {
		if m, err := parseMessage(line); !errors.Is(err, errControl) {
			t.Errorf("%q: %+v %v", line, m, err)
		}
	}
}

func collect(in string) ([]message, error) {
	var got []message
	err := readControl(strings.NewReader(in), func(m message) { got = append(got, m) })
	return got, err
}

func TestReadControl(t *testing.T) {
	got, err := collect("ready\nexit 3\n")
	if err != nil || len(got) != 2 || got[1].exit != 3 {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := collect("ready\nexit 3"); err != nil || len(got) != 1 {
		t.Errorf("unfinished line: %+v %v", got, err)
	}
	if _, err := collect(strings.Repeat("x", 1<<20)); !errors.Is(err, errControl) {
		t.Errorf("endless line: %v", err)
	}
	if got, err := collect("ready\nnonsense\nexit 0\n"); !errors.Is(err, errControl) || len(got) != 1 {
		t.Errorf("what follows nonsense was believed: %+v %v", got, err)
	}
}

func FuzzReadControl(f *testing.F) {
	f.Add([]byte("ready\nexit 3\n"))
	f.Add([]byte("exit 256\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		_ = readControl(bytes.NewReader(in), func(m message) {
			if m.exit < 0 || m.exit > 255 {
				t.Fatalf("exit status %d", m.exit)
			}
		})
	})
}
