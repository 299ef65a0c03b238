package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// askService asks the guest's service for each path over both of its sockets, and
// prints what it answers: "SOCKET PATH STATUS BODY". With "again" for the last it
// asks for the first once more when it is told to stop.
func askService(paths []string) {
	again := paths[len(paths)-1] == "again"
	if again {
		paths = paths[:len(paths)-1]
	}
	ask("", paths)
	listening, err := os.ReadFile("/proc/net/tcp")
	fmt.Printf("listening %v %v\n", strings.Contains(string(listening), "0100007F:1F46 00000000:0000 0A"), err)
	err = os.WriteFile("/run/ccrun/x", nil, 0o600)
	fmt.Printf("written %v\n", err == nil)
	for _, what := range []string{"/dev/sev-guest", "/service", "/sys/kernel/config/tsm"} {
		if _, err := os.Lstat(what); err == nil {
			fmt.Println("YES: there is", what)
		}
	}
	if again {
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM)
		fmt.Println("waits to be told")
		<-told
		ask("later ", paths[:1])
	}
}

func ask(when string, paths []string) {
	for name, address := range map[string][2]string{"tcp": {"tcp4", "127.0.0.1:8006"}, "unix": {"unix", "/run/ccrun/cdh.sock"}} {
		dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
				fmt.Printf("%s domain %d %v\n", name, domain, err)
			})
		}}
		client := http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, address[0], address[1])
		}}}
		for _, path := range paths {
			resp, err := client.Get("http://127.0.0.1:8006" + path)
			if err != nil {
				fmt.Printf("%s%s %s %v\n", when, name, path, err)
				continue
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			fmt.Printf("%s%s %s %d %q %v\n", when, name, path, resp.StatusCode, body, err)
		}
	}
}
