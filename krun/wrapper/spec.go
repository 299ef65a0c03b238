package wrapper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun/firmware"
)

const variantAnnotation = "krun.variant"

// device is an entry of linux.devices in the OCI runtime specification.
type device struct {
	Path     string `json:"path"`
	Type     string `json:"type"`
	Major    uint32 `json:"major"`
	Minor    uint32 `json:"minor"`
	FileMode uint32 `json:"fileMode"`
	UID      uint32 `json:"uid"`
	GID      uint32 `json:"gid"`
}

// rule is an entry of linux.resources.devices.
type rule struct {
	Allow  bool   `json:"allow"`
	Type   string `json:"type"`
	Major  uint32 `json:"major"`
	Minor  uint32 `json:"minor"`
	Access string `json:"access"`
}

// configure adds the devices and the annotation of a confidential machine to
// the bundle's specification. Both devices, always: crun adds none if it finds
// /dev/kvm, and makes /dev/sev with a number that is not every host's.
func (w *Wrapper) configure(b *bundle) error {
	var devices []device
	for _, n := range []struct{ path, source string }{{"/dev/kvm", w.KVM}, {"/dev/sev", w.SEV}} {
		d, err := statDevice(n.path, n.source)
		if err != nil {
			return err
		}
		devices = append(devices, d)
	}
	if err := b.addDevices(devices); err != nil {
		return fmt.Errorf("adding devices to %s: %w", b.specPath, err)
	}
	if have := b.annotations[variantAnnotation]; have != "" && have != "sev" {
		return fmt.Errorf("annotation %s is %q, expected sev for this image", variantAnnotation, have)
	}
	err := edit(b.spec, "annotations", func(a map[string]json.RawMessage) error {
		a[variantAnnotation] = json.RawMessage(`"sev"`)
		return nil
	})
	if err != nil {
		return fmt.Errorf("adding annotation to %s: %w", b.specPath, err)
	}
	out, err := json.Marshal(b.spec)
	if err != nil {
		return err
	}
	return firmware.WriteFile(b.specPath, out, b.mode)
}

// statDevice reads the number that the host's kernel gave a device: SEV's is
// dynamic.
func statDevice(path, source string) (device, error) {
	var st unix.Stat_t
	err := unix.Stat(source, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return device{}, &refusal{
			fmt.Errorf("the host has no %s", path),
			"this image runs only on a host with SEV-SNP enabled; see `ccrun doctor`",
		}
	}
	if err != nil {
		return device{}, &os.PathError{Op: "stat", Path: source, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return device{}, fmt.Errorf("%s is not a character device", source)
	}
	return device{Path: path, Type: "c", Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev), FileMode: 0o666}, nil
}

func (b *bundle) addDevices(devices []device) error {
	return edit(b.spec, "linux", func(linux map[string]json.RawMessage) error {
		err := appendTo(linux, "devices", func(list []json.RawMessage) ([]json.RawMessage, error) {
			for _, d := range devices {
				var err error
				if list, err = replaceDevice(list, d); err != nil {
					return nil, err
				}
			}
			return list, nil
		})
		if err != nil {
			return err
		}
		return edit(linux, "resources", func(resources map[string]json.RawMessage) error {
			return appendTo(resources, "devices", func(list []json.RawMessage) ([]json.RawMessage, error) {
				for _, d := range devices {
					raw, err := json.Marshal(rule{true, d.Type, d.Major, d.Minor, "rwm"})
					if err != nil {
						return nil, err
					}
					list = append(list, raw)
				}
				return list, nil
			})
		})
	})
}

// replaceDevice puts d into list, in place of an entry of the same path.
func replaceDevice(list []json.RawMessage, d device) ([]json.RawMessage, error) {
	kept := list[:0:0]
	for _, raw := range list {
		var have struct {
			Path string `json:"path"`
		}
		if err := json.Unmarshal(raw, &have); err != nil {
			return nil, err
		}
		if have.Path != d.Path {
			kept = append(kept, raw)
		}
	}
	raw, err := json.Marshal(d)
	return append(kept, raw), err
}

// edit changes the object at parent[name], which is made if it is not there.
func edit(parent map[string]json.RawMessage, name string, change func(map[string]json.RawMessage) error) error {
	child := map[string]json.RawMessage{}
	if raw := parent[name]; len(raw) > 0 {
		if err := json.Unmarshal(raw, &child); err != nil {
			return err
		}
	}
	if child == nil { // JSON null
		child = map[string]json.RawMessage{}
	}
	if err := change(child); err != nil {
		return err
	}
	raw, err := json.Marshal(child)
	parent[name] = raw
	return err
}

func appendTo(parent map[string]json.RawMessage, name string, change func([]json.RawMessage) ([]json.RawMessage, error)) error {
	var list []json.RawMessage
	if raw := parent[name]; len(raw) > 0 {
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
	}
	list, err := change(list)
	if err != nil {
		return err
	}
	parent[name], err = json.Marshal(list)
	return err
}
