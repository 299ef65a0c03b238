package crun

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
)

// maxSpecBytes bounds a container specification.
const maxSpecBytes = 16 << 20

// Spec is the specification of a container about to be created. It is read
// through its decoded form and changed through Set only, so that members that
// nobody changes keep their bytes, those that we do not know included.
type Spec struct {
	specs.Spec
	Path   string // of the file it was read from
	Mode   os.FileMode
	ID     string // of the container
	Bundle string // directory of the OCI bundle
	RootFS string // the image's root file system

	members map[string]json.RawMessage
}

// Open reads the specification that c names, as crun finds it: another than
// the bundle's is relative to the working directory.
func (c Command) Open() (*Spec, error) {
	bundle, err := filepath.Abs(c.Bundle) // "" is the working directory
	if err != nil {
		return nil, fmt.Errorf("finding bundle: %w", err)
	}
	path := filepath.Join(bundle, "config.json")
	if c.Config != "" && c.Config != "config.json" {
		if path, err = filepath.Abs(c.Config); err != nil {
			return nil, fmt.Errorf("finding specification: %w", err)
		}
	}
	raw, err := bounded.Regular(path, maxSpecBytes)
	if err != nil {
		return nil, fmt.Errorf("reading specification: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading specification: %w", err)
	}
	s, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decoding %s: %w", path, err)
	}
	s.Path, s.Mode, s.ID, s.Bundle, s.RootFS = path, info.Mode().Perm(), c.ID, bundle, filepath.Clean(s.Root.Path)
	if !filepath.IsAbs(s.RootFS) {
		s.RootFS = filepath.Join(bundle, s.RootFS)
	}
	return s, nil
}

// decode refuses members that appear twice, also under names that differ only
// in case: crun could take the other one.
func decode(raw []byte) (*Spec, error) {
	s := new(Spec)
	if err := kbs.UnmarshalOpen(raw, &s.members); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &s.Spec); err != nil {
		return nil, err
	}
	if s.Root == nil || s.Root.Path == "" {
		return nil, errors.New("specification has no root.path")
	}
	return s, nil
}

// Encode is the specification as JSON.
func (s *Spec) Encode() ([]byte, error) { return json.Marshal(s.members) }

// Set puts value in place of the member at path, making the objects that lead
// there; without a value it takes the member out.
func (s *Spec) Set(value any, path ...string) error {
	err := set(s.members, value, path)
	if err != nil {
		return fmt.Errorf("changing %v of %s: %w", path, s.Path, err)
	}
	raw, err := s.Encode()
	if err != nil {
		return err
	}
	changed, err := decode(raw)
	if err != nil {
		return fmt.Errorf("changing %v of %s: %w", path, s.Path, err)
	}
	s.Spec = changed.Spec
	return nil
}

func set(object map[string]json.RawMessage, value any, path []string) (err error) {
	name := path[0]
	if len(path) > 1 {
		child := map[string]json.RawMessage{}
		if raw, ok := object[name]; ok {
			if err := json.Unmarshal(raw, &child); err != nil {
				return err
			}
		}
		if child == nil { // JSON null
			child = map[string]json.RawMessage{}
		}
		if err := set(child, value, path[1:]); err != nil {
			return err
		}
		value = child
	}
	if value == nil {
		delete(object, name)
		return nil
	}
	object[name], err = json.Marshal(value)
	return err
}

// AddDevices gives the container devices, in place of those of the same path,
// and the right to use them.
func (s *Spec) AddDevices(devices []specs.LinuxDevice) error {
	var list []specs.LinuxDevice
	var rules []specs.LinuxDeviceCgroup
	if s.Linux != nil {
		list = s.Linux.Devices
		if s.Linux.Resources != nil {
			rules = s.Linux.Resources.Devices
		}
	}
	for _, d := range devices {
		list = slices.DeleteFunc(list, func(have specs.LinuxDevice) bool { return have.Path == d.Path })
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: "rwm"})
	}
	if err := s.Set(append(list, devices...), "linux", "devices"); err != nil {
		return err
	}
	return s.Set(rules, "linux", "resources", "devices")
}
