package workload

import "errors"

// ErrNeedUserNamespace reports that the containers-storage of an unprivileged
// user must be opened from within that user's user namespace.
var ErrNeedUserNamespace = errors.New("local container storage of an unprivileged user needs its user namespace")
