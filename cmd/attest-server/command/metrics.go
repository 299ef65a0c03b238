package command

import (
	"cmp"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/attest-server/web"
	"github.com/ccrun/ccrun/cmd/face"
)

// serveMetrics starts a listener of its own for Prometheus, until the server
// that it returns is closed. It speaks plain HTTP and asks nobody who he is:
// hence loopback, unless the operator names another address.
func serveMetrics(address string, h http.Handler, log *slog.Logger) (*http.Server, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, face.Usagef("metrics_listen %q, expected HOST:PORT: %v", address, err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(cmp.Or(host, "localhost"), port))
	if err != nil {
		return nil, notListening("--metrics-listen", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	s := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("serving metrics", "address", l.Addr().String())
	go func() { _ = s.Serve(l) }() // ends with Close
	return s, nil
}

// showExpiries shows when all expire, the earliest first: of one name that
// counts.
func showExpiries(r *metrics.Registry, all func() []web.Expiry) {
	r.Gauge("attest_server_expiry_timestamp_seconds", "When a certificate or collateral expires, in Unix time.", []string{"kind", "name"},
		func(set func(float64, ...string)) {
			sorted := slices.SortedStableFunc(slices.Values(all()), func(a, b web.Expiry) int { return a.Expires.Compare(b.Expires) })
			for _, e := range sorted {
				set(float64(e.Expires.Unix()), e.Kind, e.Name)
			}
		})
}
