package machine

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestGuestNet: firmware of any age finds the network that it was made for.
func TestGuestNet(t *testing.T) {
	for line, want := range map[string]string{
		"quiet": "user,id=net",
		"quiet ccrun.net=10.0.2.15/24,10.0.2.2,10.0.2.3": "user,id=net,net=10.0.2.0/24,dhcpstart=10.0.2.15,host=10.0.2.2,dns=10.0.2.3",
		"ccrun.net=10.0.2.15/24,,":                       "user,id=net,net=10.0.2.0/24,dhcpstart=10.0.2.15",
	} {
		if n, err := guestNetOf(line); err != nil || n.netdev() != want {
			t.Errorf("%q: %s (%v)", line, n.netdev(), err)
		}
	}
	for _, line := range []string{"ccrun.net=", "ccrun.net=10.0.2.15,x,", "ccrun.net=10.0.2.15/24,10.0.2.2;,", "ccrun.net=10.0.2.15/24,,a"} {
		if n, err := guestNetOf(line); err == nil {
			t.Errorf("%q: %+v", line, n)
		}
	}
}

// fakeMonitor is QEMU's, where port 81 is taken. It returns what it was asked.
func fakeMonitor(port io.ReadWriteCloser) (asked []string) {
	_, _ = io.WriteString(port, `{"QMP":{"version":{}}}`+"\n"+`{"event":"RESUME"}`+"\n")
	in := json.NewDecoder(port)
	for {
		var c struct {
			Execute   string
			Arguments struct {
				Line string `json:"command-line"`
			}
		}
		if in.Decode(&c) != nil {
			return asked
		}
		asked = append(asked, strings.TrimSpace(c.Execute+" "+c.Arguments.Line))
		answer := `{"return": {}}`
		if c.Execute == "human-monitor-command" {
			answer = `{"return": ""}`
		}
		if strings.Contains(c.Arguments.Line, "::81-") {
			answer = `{"return": "Could not set up host forwarding rule\\r\\n"}`
		}
		_, _ = io.WriteString(port, answer+"\n")
		if strings.Contains(c.Arguments.Line, "udp") {
			_, _ = io.WriteString(port, `{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"},"timestamp":{}}`+"\n"+`{"event":"STOP"}`+"\n")
			_ = port.Close()
			return asked
		}
	}
}

// TestTakenPort keeps no machine from starting, and the others are forwarded.
func TestTakenPort(t *testing.T) {
	ours, theirs, err := socketPair("monitor")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan []string)
	go func() { asked <- fakeMonitor(theirs) }()
	net, err := guestNetOf("ccrun.net=100.127.255.15/24,,")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	events, _ := attend(ours, net, []Port{{80, "tcp"}, {81, "tcp"}, {53, "udp"}}, slog.New(slog.NewTextHandler(&log, nil)))
	want := []string{"qmp_capabilities", "human-monitor-command hostfwd_add net tcp::80-100.127.255.15:80",
		"human-monitor-command hostfwd_add net tcp::81-100.127.255.15:81", "human-monitor-command hostfwd_add net udp::53-100.127.255.15:53"}
	if got := <-asked; !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
	if got := <-events; got != "RESUME, SHUTDOWN guest-reset, STOP" {
		t.Errorf("last events %q", got)
	}
	if s := log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "port=81/tcp") {
		t.Errorf("told %q, expected a line about port 81", s)
	}
}

// TestOutputArrivesWhole: the workload's streams are copied to their end.
func TestOutputArrivesWhole(t *testing.T) {
	f := startFake(t, time.Minute)
	ours, theirs, err := socketPair("stdout")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	f.copyOutput(ours, w)
	f.say(t, "ready\nexit 0\n")
	f.powerOff()
	text := strings.Repeat("line\n", 1000)
	_, _ = theirs.WriteString(text)
	theirs.Close()
	f.want(t, 0, nil)
	w.Close()
	if got, _ := io.ReadAll(r); string(got) != text {
		t.Errorf("%d bytes arrived, expected %d", len(got), len(text))
	}
}
