package command

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	attestserver "github.com/ccrun/ccrun/attest-server"
	"github.com/ccrun/ccrun/cmd/face"
)

// serveMetrics starts a listener of its own for Prometheus, if one is wanted.
// It speaks plain HTTP and asks nobody who he is: hence loopback, unless the
// operator names another address.
func (d *server) serveMetrics() error {
	if d.cfg.MetricsListen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(d.cfg.MetricsListen)
	if err != nil {
		return face.Usagef("metrics_listen %q, expected HOST:PORT: %v", d.cfg.MetricsListen, err)
	}
	if host == "" {
		host = "localhost"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Errorf("listening for metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", d.metrics.Handler())
	d.scraping = &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	d.log.Info("serving metrics", "address", l.Addr().String())
	go func() { _ = d.scraping.Serve(l) }() // ends with close
	return nil
}

// expiries is the certificates in use.
func (d *server) expiries() []attestserver.Expiry {
	var all []attestserver.Expiry
	for _, der := range d.cert.current.Load().Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue // not the leaf, which was parsed when it was loaded
		}
		all = append(all, attestserver.Expiry{Kind: "tls", Name: c.Subject.CommonName, Expires: c.NotAfter})
	}
	return append(all, d.endorsementExpiries()...)
}
