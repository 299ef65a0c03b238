package answer

import (
	"net/http"
	"strings"
)

// Router is a ServeMux that knows its patterns, for the test of the API's
// description.
type Router struct {
	*http.ServeMux
	Patterns []string
}

// HandleFunc is Handle for a function.
func (m *Router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(h))
}

// Handle registers h for pattern.
func (m *Router) Handle(pattern string, h http.Handler) {
	m.Patterns = append(m.Patterns, strings.TrimSpace(pattern))
	m.ServeMux.Handle(pattern, h)
}
