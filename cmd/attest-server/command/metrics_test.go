package command

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestMetricsHaveTheirOwnListener(t *testing.T) {
	dir, token := initDir(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	url, stop := serve(t, "--data", dir, "--metrics-listen", "127.0.0.1:"+port)
	if _, err := admin(t, dir, url, token).Register(t.Context(), registration("w1", 1)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://127.0.0.1:" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{
		`attest_server_request_duration_seconds_count\{route="PUT /v1/workloads/\{id\}",status="2xx"\} 1`,
		`attest_server_expiry_timestamp_seconds\{kind="tls",name="attest-server"\} \d`,
		`attest_server_expiry_timestamp_seconds\{kind="tls",name="attest-server CA"\} \d`,
		`attest_server_chain_cache_total\{found="yes",tee="snp"\} 0`,
	} {
		if !regexp.MustCompile("(?m)^" + want).MatchString(text) {
			t.Errorf("metrics lack %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, token) {
		t.Error("metrics hold a token")
	}
	tr := &http.Transport{TLSClientConfig: tlsRoots(admin(t, dir, url, token).RootCAs)}
	defer tr.CloseIdleConnections()
	if resp, err = (&http.Client{Transport: tr}).Get(url + "/metrics"); err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("/metrics among guests, without a token: %s", resp.Status)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	if resp, err := http.Get("http://127.0.0.1:" + port + "/metrics"); err == nil {
		resp.Body.Close()
		t.Error("metrics are served after the end")
	}
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--listen", "127.0.0.1:0", "--metrics-listen", "nonsense"); err == nil {
		t.Error("--metrics-listen nonsense")
	}
}
