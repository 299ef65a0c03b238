package attestserver

import (
	"net/http"
	"strings"
)

// router is a ServeMux that knows its patterns, for the test of the API's
// description.
type router struct {
	*http.ServeMux
	patterns []string
}

func (m *router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(h))
}

func (m *router) Handle(pattern string, h http.Handler) {
	m.patterns = append(m.patterns, strings.TrimSpace(pattern))
	m.ServeMux.Handle(pattern, h)
}
