package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containers/common/pkg/retry"
	"github.com/containers/image/v5/docker"
	"github.com/docker/distribution/registry/api/errcode"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/ccrun/ccrun/workload/blob"
)

// errStalled reports a registry that has stopped to send or to take bytes.
var errStalled = errors.New("registry does not answer")

// isTransient tells errors of the moment from lasting ones. It is narrower than
// the library's retry.IsErrorRetryable, which also takes "no such blob" and
// "invalid digest" for passing.
func isTransient(err error) bool {
	var codes errcode.Errors
	var code errcode.ErrorCoder
	var status docker.UnexpectedHTTPStatusError
	var answer *transport.Error
	var anew *startAnewError
	var lasting *lastingError
	switch {
	case errors.As(err, &lasting) || errors.Is(err, context.Canceled) || errors.Is(err, blob.ErrDigest):
		return false
	case errors.As(err, &anew) || errors.Is(err, errStalled) || isHangUp(err) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return true
	case errors.As(err, &answer):
		return transientStatus(answer.StatusCode)
	case errors.As(err, &codes):
		for _, e := range codes {
			if !isTransient(e) {
				return false
			}
		}
		return len(codes) > 0
	case errors.As(err, &code):
		return transientStatus(code.ErrorCode().Descriptor().HTTPStatusCode)
	case errors.As(err, &status):
		return transientStatus(status.StatusCode)
	}
	// This type the library keeps to itself: status 4xx without an error body.
	return strings.Contains(err.Error(), "StatusCode: 429,") || retry.IsErrorRetryable(err)
}

func transientStatus(s int) bool {
	return s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500 && s != http.StatusNotImplemented
}

// lastingError is not a matter of the registry.
type lastingError struct{ error }

// isHangUp says whether a connection ended early.
func isHangUp(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}

// parseUploadRange returns how many bytes a session has, by its header
// `Range: 0-LAST`. An empty one is 0-0 by custom, as would be one of one byte.
func parseUploadRange(s string) (int64, bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(s, "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || n < 0 || n == 1<<63-1 || last[0] == '+' {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return n + 1, true
}

// busyError is an answer with the time after which to ask again, 0 if not said.
type busyError struct {
	error
	after time.Duration
}

// retryAfter reads Retry-After (RFC 9110, 10.2.3).
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// startAnewError makes the next attempt begin a session.
type startAnewError struct{ error }

// isRefusal says whether a registry does not want this session continued. That
// it is busy or does not know us is another matter.
func isRefusal(err error) bool {
	var anew *startAnewError
	var answer *transport.Error
	return errors.As(err, &anew) || errors.As(err, &answer) && !transientStatus(answer.StatusCode) &&
		answer.StatusCode != http.StatusUnauthorized && answer.StatusCode != http.StatusForbidden
}

// isBusy says whether a question may be answered later. 500 is what some
// registries say to what they do not know.
func isBusy(err error) bool {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answer.StatusCode != http.StatusInternalServerError && transientStatus(answer.StatusCode)
	}
	return !isRefusal(err)
}
