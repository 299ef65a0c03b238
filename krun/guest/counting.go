package guest

import (
	"io"
	"sync/atomic"
)

// progressBytes is what counts as progress of a host that reads.
const progressBytes = 4 << 10

// countingWriter counts what its Writer took.
type countingWriter struct {
	to io.Writer
	n  *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (done int, err error) {
	for done < len(p) && err == nil {
		var n int
		n, err = c.to.Write(p[done:min(done+progressBytes, len(p))])
		c.n.Add(int64(n))
		done += n
	}
	return done, err
}
