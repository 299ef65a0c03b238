package imagetest

import (
	"sync"
	"testing"
)

// AtOnce runs a subtest for each row, eight at a time whatever -parallel says:
// for rows that wait more than they compute.
func AtOnce[Row any](t *testing.T, rows map[string]Row, run func(*testing.T, Row)) {
	t.Helper()
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for name, row := range rows {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(name, func(t *testing.T) { run(t, row) })
		})
	}
	all.Wait()
}
