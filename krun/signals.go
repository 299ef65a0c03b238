package krun

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// hostSignals are what an image may let the host send beside stopping and
// killing it, as Linux numbers them. What a fault of the program itself raises
// is not among them.
func hostSignals() map[string]int {
	return map[string]int{
		"SIGHUP": 1, "SIGQUIT": 3, "SIGUSR1": 10, "SIGUSR2": 12, "SIGALRM": 14, "SIGCONT": 18,
		"SIGTTIN": 21, "SIGTTOU": 22, "SIGWINCH": 28,
	}
}

// ParseHostSignals makes the list of a LaunchPolicy from names with or without
// "SIG", in any case and order.
func ParseHostSignals(names []string) ([]string, error) {
	var list []string
	for _, name := range names {
		full := "SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")
		if _, ok := hostSignals()[full]; !ok {
			return nil, fmt.Errorf("signal %.20q: expected one of %s (TERM and INT are the stop signal, which with KILL is always let through)",
				name, strings.Join(slices.Sorted(maps.Keys(hostSignals())), ", "))
		}
		list = append(list, full)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// isHostSignal says whether names, a list as ParseHostSignals makes it, has the
// signal of that number.
func isHostSignal(names []string, number int) bool {
	return slices.ContainsFunc(names, func(name string) bool { return hostSignals()[name] == number && number != 0 })
}

// checkHostSignals refuses a list that has a second spelling.
func checkHostSignals(names []string) error {
	list, err := ParseHostSignals(names)
	if err == nil && !slices.Equal(list, names) {
		err = fmt.Errorf("signals %q, expected %q", names, list)
	}
	return err
}
