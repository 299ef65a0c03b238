package firmware

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/ccrun/ccrun/krun"
)

// AgentSegment is the archive with the guest agent: /init, /dev/console and
// /dev/null, and empty directories to mount on. The same agent gives the same
// bytes.
func AgentSegment(agentELF []byte) ([]byte, error) {
	if err := checkAgent(agentELF); err != nil {
		return nil, fmt.Errorf("packing guest agent: %w", err)
	}
	var a archive
	a.directories("dev", "proc", "sys", "run", "etc", "etc/ccrun", "newroot")
	a.add(node{name: "tmp", mode: typeDirectory | 0o1777})
	a.add(node{name: "dev/console", mode: typeCharacter | 0o600, major: 5, minor: 1})
	a.add(node{name: "dev/null", mode: typeCharacter | 0o666, major: 1, minor: 3})
	a.add(node{name: "init", mode: typeRegular | 0o755, data: agentELF})
	return compress(a.finish())
}

// checkAgent refuses what could not run as PID 1 of an initramfs that holds
// nothing else.
func checkAgent(b []byte) error {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return err
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("%v %v, expected an x86-64 executable", f.Class, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("the agent needs a dynamic loader, expected a static executable (CGO_ENABLED=0)")
		}
	}
	return nil
}

// IdentitySegment is the archive with the workload's identity at
// krun.IdentityPath. identityJSON must be what krun.Identity.Encode returned.
func IdentitySegment(identityJSON []byte) ([]byte, error) {
	if _, err := krun.DecodeIdentity(identityJSON); err != nil {
		return nil, fmt.Errorf("packing identity: %w", err)
	}
	var a archive
	a.directories("etc", "etc/ccrun")
	a.add(node{name: strings.TrimPrefix(krun.IdentityPath, "/"), mode: typeRegular | 0o400, data: identityJSON})
	return compress(a.finish())
}

const gzipLevel = 7

// compress uses gzip, the only form that libkrunfw's kernels unpack. The
// library is pinned in go.mod, so that a new Go toolchain does not change the
// bytes, and with them every launch digest. The best level would save 1 % of an
// agent and take five times as long, on every build.
func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(len(b)/2 + 4096) // as for the archive
	w, err := gzip.NewWriterLevel(&out, gzipLevel)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// ComposeInitrd concatenates archives as Linux unpacks them: each starts at a
// multiple of 4 bytes, and zeros fill up to a multiple of 4096, which libkrun
// and SNP_LAUNCH_UPDATE need.
func ComposeInitrd(segments ...[]byte) ([]byte, error) { return AppendInitrd(nil, segments...) }

// AppendInitrd is ComposeInitrd in the room behind to, if there is enough.
func AppendInitrd(to []byte, segments ...[]byte) ([]byte, error) {
	size := 0
	for _, s := range segments {
		size += (len(s) + 3) &^ 3
		if size > MaxInitrdBytes {
			return nil, fmt.Errorf("initrd larger than %d bytes", MaxInitrdBytes)
		}
	}
	begin := len(to)
	out := slices.Grow(to, size+PageBytes)
	for _, s := range segments {
		out = zeros(append(out, s...), begin, 4)
	}
	return zeros(out, begin, PageBytes), nil
}

// zeros fills b up to a multiple of align, counted from begin.
func zeros(b []byte, begin, align int) []byte {
	return append(b, make([]byte, (align-(len(b)-begin)%align)%align)...)
}

// CheckLibkrunInitrd says whether libkrun can load initrd, once BuildLibrary
// has padded it: it sits between 0xa00000 and the kernel at 0x1000000.
func CheckLibkrunInitrd(initrd []byte) error {
	padded := (len(initrd) + BundleAlign - 1) / BundleAlign * BundleAlign
	if len(initrd) == 0 || len(initrd)%PageBytes != 0 || padded > MaxLibkrunInitrdBytes {
		return fmt.Errorf("initrd of %d bytes (%d with padding), expected a multiple of %d up to %d",
			len(initrd), padded, PageBytes, MaxLibkrunInitrdBytes)
	}
	return nil
}
