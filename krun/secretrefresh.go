package krun

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// SecretRefresh is measured: how often a running guest asks for its secrets anew,
// and what it sends the workload once it has replaced files.
type SecretRefresh struct {
	Seconds uint32 `json:"seconds"`
	Signal  string `json:"signal,omitempty"` // as in "SIGHUP"; empty: none
}

const longestRefresh = 366 * 24 * time.Hour

// Every is the interval.
func (r *SecretRefresh) Every() time.Duration { return time.Duration(r.Seconds) * time.Second }

// Number is the signal as Linux numbers it; 0: none.
func (r *SecretRefresh) Number() int { return refreshSignals()[r.Signal] }

func refreshSignals() map[string]int {
	all := map[string]int{"SIGTERM": 15, "SIGINT": 2}
	maps.Copy(all, hostSignals())
	return all
}

// String says it to people.
func (r *SecretRefresh) String() string {
	if r.Signal == "" {
		return "every " + r.Every().String()
	}
	return "every " + r.Every().String() + ", then " + r.Signal
}

// ParseSecretRefresh reads DURATION[,signal=NAME].
func ParseSecretRefresh(s string) (*SecretRefresh, error) {
	duration, signal, signalled := strings.Cut(s, ",")
	d, err := time.ParseDuration(duration)
	if err != nil || d < time.Second || d > longestRefresh || d%time.Second != 0 {
		return nil, fmt.Errorf("interval %.40q, expected whole seconds, as in 5m or 1h, up to a year", duration)
	}
	r := &SecretRefresh{Seconds: uint32(d / time.Second)}
	if !signalled {
		return r, nil
	}
	name, ok := strings.CutPrefix(signal, "signal=")
	if !ok || name == "" {
		return nil, fmt.Errorf("%.40q, expected signal=NAME", signal)
	}
	r.Signal = "SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")
	return r, r.checkSignal()
}

func (r *SecretRefresh) checkSignal() error {
	if r.Signal == "" || r.Number() != 0 {
		return nil
	}
	return fmt.Errorf("signal %.20q, expected one of %s", r.Signal, strings.Join(slices.Sorted(maps.Keys(refreshSignals())), ", "))
}

// Validate refuses what a guest with that network could not do, nil is right. A
// variable stays what it was, so that there have to be files.
func (r *SecretRefresh) Validate(rules []SecretRule, network NetworkMode) error {
	switch {
	case r == nil:
		return nil
	case r.Seconds == 0 || r.Every() > longestRefresh:
		return fmt.Errorf("secrets refreshed every %d seconds, expected 1 to a year", r.Seconds)
	case len(rules) > 0 && !slices.ContainsFunc(rules, func(s SecretRule) bool { return s.Path != "" }):
		return errors.New("secrets refreshed, and none is in a file: a process keeps its variables")
	case network == NetworkNone:
		return errors.New("secrets refreshed without a network: the server cannot be asked")
	}
	return r.checkSignal()
}
