package attestserver

import (
	_ "embed"
	"net/http"
)

// openAPI describes the native dialect. A test holds it against the routes
// and the answers.
//
//go:embed openapi.yaml
var openAPI []byte

func getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, err := w.Write(openAPI)
	return err
}
