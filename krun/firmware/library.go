package firmware

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ParseLibrary reads a libkrunfw-sev.so or -tdx.so, of the 2-argument ABI of
// krunfw_get_kernel (address, size) or the 3-argument one (address, entry,
// size), without executing any of it.
func ParseLibrary(file []byte) (*Bundle, error) {
	im, err := parseImage(file)
	if err != nil {
		return nil, err
	}
	b := &Bundle{Kind: KindLibkrun}
	if err := b.readKernel(im); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		to   *[]byte
	}{{"krunfw_get_qboot", &b.QBoot}, {"krunfw_get_initrd", &b.Initrd}} {
		if *f.to, err = im.payloadOf(f.name); err != nil {
			return nil, notTEE(err)
		}
	}
	return b, b.seal()
}

// notTEE explains what a library without qboot is: the plain libkrunfw.
func notTEE(err error) error {
	if errors.Is(err, errNoSymbol) {
		return fmt.Errorf("%w: not the SEV or TDX variant of libkrunfw", err)
	}
	return err
}

func (b *Bundle) readKernel(im *image) error {
	c, err := im.evaluate("krunfw_get_kernel")
	if err != nil {
		return err
	}
	var size uint64
	switch args := slices.Sorted(maps.Keys(c.stored)); {
	case slices.Equal(args, []uint64{0, 1}):
		b.KernelLoad, size = c.stored[0], c.stored[1]
	case slices.Equal(args, []uint64{0, 1, 2}):
		b.KernelLoad, b.KernelEntry, size = c.stored[0], c.stored[1], c.stored[2]
	default:
		return fmt.Errorf("function krunfw_get_kernel sets arguments %v, expected 2 or 3", args)
	}
	if b.Kernel, err = im.payload(c.result, size); err != nil {
		return fmt.Errorf("reading kernel: %w", err)
	}
	return nil
}

// payloadOf reads what a function of the form char *f(size_t *size) returns.
func (im *image) payloadOf(name string) ([]byte, error) {
	c, err := im.evaluate(name)
	if err != nil {
		return nil, err
	}
	size, ok := c.stored[0]
	if !ok || len(c.stored) != 1 {
		return nil, fmt.Errorf("function %s does not set just its size argument", name)
	}
	p, err := im.payload(c.result, size)
	if err != nil {
		return nil, fmt.Errorf("reading what %s returns: %w", name, err)
	}
	return p, nil
}
