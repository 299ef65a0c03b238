package firmware

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// machineModules are what QEMU's machine and an encrypted disk take: a guest
// starts sooner without those of others. A kernel that has one built in leaves it
// out.
func machineModules() []string {
	return []string{
		"virtio_pci", "virtio_blk", "virtio_console", "virtio_net",
		"dm_mod", "dm_crypt", "dm_integrity", "xts", "authenc", "aesni_intel",
		"ecb", // generic xts is made of it, where the processor has no AES
	}
}

// imageModules are what an image with a file system takes besides.
func imageModules() map[string][]string {
	return map[string][]string{
		"btrfs": {"btrfs", "loop"}, // loop: for scratch in memory
		"ext4":  {"ext4", "overlay"},
		"erofs": {"erofs", "overlay"},
	}
}

// aegisModules are for images with that cipher. A kernel that has none of them, and
// has it not built in, runs the others.
func aegisModules() []string { return []string{"aegis128", "aegis128_aesni"} }

// renamedModules have other names in other kernels (sha256_generic is sha256
// since 6.16). Distributions have them built in; where one is a file it goes
// along. So do BTRFS's checksums, which it asks for by name, and SHA-256 of the
// processor's, which the tags of each sector are made with.
func renamedModules() []string {
	return []string{"hmac", "sha256_generic", "sha256", "sha256_ssse3", "crc32c_generic", "crc32c_intel"}
}

// reportModules are the drivers of the TEE's report device, with configfs-tsm
// beneath them. Debian's kernels have them as modules from 6.12 on, which the
// agent unloads again before the workload starts.
func reportModules(tee kbs.TEE) []string {
	switch tee {
	case kbs.SNP:
		return []string{"sev_guest"}
	case kbs.TDX:
		return []string{"tdx_guest"}
	}
	return nil
}

// GuestModules is what of all these a guest for tee takes from the modules in dir.
func GuestModules(dir string, tee kbs.TEE) (Modules, error) {
	wanted, images := append(machineModules(), reportModules(tee)...), imageModules()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _, isModule := strings.Cut(d.Name(), ".ko")
		switch name = strings.ReplaceAll(name, "-", "_"); {
		case !isModule:
		case slices.Contains(renamedModules(), name):
			wanted = append(wanted, name)
		case slices.Contains(aegisModules(), name):
			images["aegis128"] = append(images["aegis128"], name)
		}
		return nil
	})
	if err != nil {
		return Modules{}, fmt.Errorf("reading kernel modules: %w", err)
	}
	return Modules{Always: wanted, Images: images}, nil
}
