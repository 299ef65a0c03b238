package registry

import (
	"path/filepath"
	"testing"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/workload/imagetest"
)

func TestCheckSignatures(t *testing.T) {
	ref, err := docker.ParseReference("//registry.example/shop/app:1")
	if err != nil {
		t.Fatal(err)
	}
	const on, off = "{use-sigstore-attachments: true}", "{use-sigstore-attachments: false}"
	for name, c := range map[string]struct {
		files []string
		ok    bool
	}{
		"nothing said":           {nil, false},
		"by default":             {[]string{"default-docker: " + on}, true},
		"by default not":         {[]string{"default-docker: " + off}, false},
		"for the repository":     {[]string{"docker: {registry.example/shop/app: " + on + "}"}, true},
		"for the registry":       {[]string{"docker: {registry.example: " + on + "}", "default-docker: " + off}, true},
		"for it and not for all": {[]string{"docker: {registry.example: " + on + ", registry.example/shop: " + off + "}"}, false},
		"for others":             {[]string{"docker: {registry.example/shop/other: " + on + "}"}, false},
		"for one tag":            {[]string{"docker: {registry.example/shop/app:1: " + on + "}"}, false},
		"says something else":    {[]string{"docker: {registry.example: {lookaside: https://s.example}}", "default-docker: " + on}, true},
		"not YAML":               {[]string{"{"}, false},
	} {
		sys := &types.SystemContext{RegistriesDirPath: t.TempDir()}
		for i, text := range c.files {
			imagetest.WriteFile(t, filepath.Join(sys.RegistriesDirPath, string(rune('a'+i))+".yaml"), []byte(text))
		}
		if err := CheckSignatures(sys, ref); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
