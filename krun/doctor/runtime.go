package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/wrapper"
)

func (h *Host) config(context.Context) (string, error) {
	w, err := h.Runtime()
	if err != nil {
		return "", err
	}
	h.runtime = w
	if _, err := os.Stat(h.path(wrapper.ConfigPath)); errors.Is(err, fs.ErrNotExist) {
		return "defaults: there is no " + wrapper.ConfigPath, nil
	}
	return wrapper.ConfigPath, nil
}

func (h *Host) kvm(context.Context) (string, error) {
	if _, err := h.runtime.SNP(h.runtime.KVM); err != nil {
		return "", err
	}
	return h.runtime.KVM, nil
}

// on says whether a parameter of a kernel's module is set.
func (h *Host) on(p string) bool { v := h.read(p); return v == "Y" || v == "1" }

func (h *Host) snp() error {
	if !h.on("/sys/module/kvm_amd/parameters/sev_snp") {
		return errors.New("SEV-SNP is not enabled")
	}
	return nil
}

func (h *Host) tdx() error {
	if !h.on("/sys/module/kvm_intel/parameters/tdx") {
		return errors.New("TDX is not enabled")
	}
	return nil
}

func (h *Host) tee(context.Context) (string, error) {
	if err := h.snp(); err != nil {
		if h.tdx() == nil {
			return "", hint.With(errors.New("TDX is on, but libkrun measures only the firmware there: no kernel, no initrd"),
				"build images with --vmm qemu, or use a host with SEV-SNP")
		}
		return "", err
	}
	if _, err := os.Stat(h.runtime.SEV); err != nil {
		return "", fmt.Errorf("SEV-SNP is on, but %w", err)
	}
	if has, err := h.runtime.SNP(h.runtime.KVM); err == nil && !has {
		return "", fmt.Errorf("SEV-SNP is on, but KVM at %s makes no SNP machines", h.runtime.KVM)
	}
	return "SEV-SNP", nil
}

// safeCrun is the minor version of 1 from which on crun has no known weakness
// that matters here.
const safeCrun = 28

func (h *Host) crun(context.Context) (string, error) {
	path, err := h.runtime.FindCrun()
	if err != nil {
		return "", err
	}
	version, err := h.runtime.CheckCrun(path)
	if err != nil {
		return "", err
	}
	got := fmt.Sprintf("%s, version %s with libkrun", path, version)
	if minor, err := strconv.Atoi(strings.TrimPrefix(version, "1.")); err == nil && minor < safeCrun {
		return "", warning{fmt.Errorf("%s, which has CVE-2026-47766", got)}
	}
	return got, nil
}

func (h *Host) firmware(context.Context) (string, error) {
	fw, err := h.runtime.Firmware()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %x", fw.Path, fw.Digest), nil
}

func (h *Host) library(context.Context) (string, error) {
	dir, err := h.runtime.LibraryDir()
	if err != nil {
		return "", err
	}
	return dir + ", which executes", nil
}
