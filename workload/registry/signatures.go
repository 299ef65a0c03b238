package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containers/image/v5/types"
	"github.com/containers/storage/pkg/homedir"
	"gopkg.in/yaml.v3"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// attachments is what a file of registries.d says of sigstore signatures; of
// the library only who has pushed everything learns that.
type attachments struct {
	Default namespace            `yaml:"default-docker"`
	Docker  map[string]namespace `yaml:"docker"`
}

type namespace struct {
	Use *bool `yaml:"use-sigstore-attachments"`
}

const maxRegistriesFileBytes = 1 << 20

// CheckSignatures refuses a name for which containers-registries.d(5) keeps
// sigstore signatures out of the registry. One image is no matter for it:
// signatures go by digest.
func CheckSignatures(sys *types.SystemContext, ref types.ImageReference) error {
	dir := registriesDir(sys)
	all, err := readRegistriesDir(dir)
	if err != nil {
		return fmt.Errorf("reading registries.d: %w", err)
	}
	use := all.Default.Use
	for _, name := range ref.PolicyConfigurationNamespaces() { // the closest first
		if n, ok := all.Docker[name]; ok && n.Use != nil {
			use = n.Use
			break
		}
	}
	if use != nil && *use {
		return nil
	}
	where := ref.PolicyConfigurationNamespaces()[0]
	return hint.With(hint.Usagef("signing %s: containers-registries.d(5) keeps sigstore signatures out of its registry", where),
		"write `docker: {%s: {use-sigstore-attachments: true}}` into %s, on hosts that verify too", where, filepath.Join(dir, "NAME.yaml"))
}

func registriesDir(sys *types.SystemContext) string {
	if sys.RegistriesDirPath != "" {
		return sys.RegistriesDirPath
	}
	own := filepath.Join(homedir.Get(), ".config/containers/registries.d")
	if _, err := os.Stat(own); err == nil {
		return own
	}
	return filepath.Join(sys.RootForImplicitAbsolutePaths, "/etc/containers/registries.d")
}

func readRegistriesDir(dir string) (*attachments, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	all := &attachments{Docker: map[string]namespace{}}
	for _, path := range files {
		b, readErr := bounded.File(path, maxRegistriesFileBytes)
		if errors.Is(readErr, os.ErrNotExist) {
			continue
		}
		var one attachments
		if err = errors.Join(err, readErr, yaml.Unmarshal(b, &one)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if one.Default.Use != nil {
			all.Default = one.Default
		}
		for name, n := range one.Docker {
			all.Docker[name] = n
		}
	}
	return all, err
}
