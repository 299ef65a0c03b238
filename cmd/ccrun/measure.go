package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// measurements is the JSON of `ccrun measure`.
type measurements struct {
	TEE      kbs.TEE           `json:"tee"`
	Firmware measuredFirmware  `json:"firmware"`
	Results  []*measure.Result `json:"measurements"`
	Legacy   []legacyResult    `json:"legacy,omitempty"`
	Against  *comparison       `json:"against,omitempty"`
}

type measuredFirmware struct {
	Path   string `json:"path"`
	Kind   string `json:"kind"`
	SHA256 string `json:"sha256"` // over what all workloads on it share
}

type legacyResult struct {
	Profile measure.Profile `json:"profile"`
	Digest  string          `json:"digest"` // SHA-256
}

func measureCommand() *cli.Command {
	return &cli.Command{
		Name:  "measure",
		Usage: "print the launch measurement that a machine will have",
		Description: "Nothing is executed and no TEE is needed. Without --initrd, the firmware's own initrd is measured.\n\n" +
			"Example:\n   ccrun measure --tee snp --cpus 2 --memory 2g --firmware /usr/local/lib64/libkrunfw-sev.so.5 --profile libkrun-1.16",
		Flags: append(shapeFlags(),
			&cli.StringFlag{Name: "firmware", Usage: "libkrunfw library or firmware directory; default: the installed library", TakesFile: true},
			&cli.StringFlag{Name: "initrd", Usage: "initrd of the workload (/initrd.img of its image)", TakesFile: true},
			&cli.StringFlag{Name: "profile", Usage: "`NAME` of a profile, or all; default: the newest, or all with --format json"},
			&cli.StringFlag{Name: "against", Usage: "`EVIDENCE`: say which input would explain its measurement", TakesFile: true},
			formatFlag(),
		),
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0, "none"); err != nil {
				return err
			}
			return runMeasure(c)
		},
	}
}

// shapeFlags are the flags that say what machine it is.
func shapeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "tee", Usage: "snp, tdx or sample", Value: string(kbs.SNP)},
		&cli.UintFlag{Name: "cpus", Usage: "`NUMBER` of vCPUs", Value: 1},
		&cli.StringFlag{Name: "memory", Usage: "`SIZE` of memory, in MiB without a unit", Value: "2048"},
	}
}

func shapeFrom(c *cli.Context) (kbs.TEE, measure.Shape, error) {
	tee := kbs.TEE(c.String("tee"))
	if !tee.Valid() {
		return "", measure.Shape{}, usage("--tee %q: expected snp, tdx or sample", c.String("tee"))
	}
	mib, err := parseMemoryMiB(c.String("memory"))
	return tee, measure.Shape{CPUs: c.Uint("cpus"), MemoryMiB: mib}, err
}

// measuring is what one call of `ccrun measure` works on.
type measuring struct {
	tee      kbs.TEE
	shape    measure.Shape
	bundle   *firmware.Bundle
	initrd   []byte // as given; nil for the firmware's own
	profiles []measure.Profile
}

func runMeasure(c *cli.Context) error {
	m, err := newMeasuring(c)
	if err != nil {
		return err
	}
	out, err := m.results()
	if err != nil {
		return err
	}
	if file := c.String("against"); file != "" {
		if out.Against, err = m.compare(file); err != nil {
			return err
		}
	}
	if err := printFormatted(c, out, printMeasurements); err != nil {
		return err
	}
	if out.Against != nil && !out.Against.Same {
		return silentExit(exitDenied)
	}
	return nil
}

func newMeasuring(c *cli.Context) (*measuring, error) {
	m := &measuring{}
	var err error
	if m.tee, m.shape, err = shapeFrom(c); err != nil {
		return nil, err
	}
	if m.bundle, err = loadFirmware(c.String("firmware"), m.tee); err != nil {
		return nil, err
	}
	if file := c.String("initrd"); file != "" {
		if m.initrd, err = readBounded(file, firmware.MaxInitrdBytes); err != nil {
			return nil, err
		}
		if len(m.initrd) == 0 {
			return nil, usage("--initrd %s: the file is empty", file)
		}
	}
	return m, m.chooseProfiles(c.String("profile"), c.String("format") != "")
}

func (m *measuring) chooseProfiles(name string, structured bool) error {
	m.profiles = measure.Profiles(m.tee, m.bundle.Kind)
	if len(m.profiles) == 0 {
		return usage("TEE %s does not go with firmware of kind %s", m.tee, m.bundle.Kind)
	}
	if name == "all" || name == "" && structured {
		return nil
	}
	if name == "" {
		m.profiles = m.profiles[:1]
		return nil
	}
	p, err := measure.ParseProfile(name)
	if err != nil {
		return fail(exitUsage, err, "")
	}
	legacy := p == measure.LegacySEV || p == measure.LegacySEVES
	if !legacy && !slices.Contains(m.profiles, p) || legacy && m.tee != kbs.SNP {
		return usage("profile %s does not go with TEE %s on firmware of kind %s, expected one of %v", p, m.tee, m.bundle.Kind, m.profiles)
	}
	m.profiles = []measure.Profile{p}
	return nil
}

func (m *measuring) results() (*measurements, error) {
	in, err := measure.FromBundle(m.bundle, m.initrd)
	if err != nil {
		return nil, err
	}
	out := &measurements{TEE: m.tee, Results: []*measure.Result{}, Firmware: measuredFirmware{
		Path: m.bundle.Path, Kind: m.bundle.Kind, SHA256: hex.EncodeToString(m.bundle.Digest[:]),
	}}
	if p := m.profiles[0]; p == measure.LegacySEV || p == measure.LegacySEVES {
		d, err := measure.Legacy(p, in, m.shape)
		out.Legacy = []legacyResult{{Profile: p, Digest: hex.EncodeToString(d[:])}}
		return out, err
	}
	l, err := measure.Prepare(in)
	if err != nil {
		return nil, err
	}
	for _, p := range m.profiles {
		r, err := l.Launch(p, m.shape)
		if err != nil {
			return nil, err
		}
		out.Results = append(out.Results, r)
	}
	return out, nil
}

func printMeasurements(w io.Writer, v any) error {
	o := v.(*measurements)
	if o.Against != nil {
		_, err := fmt.Fprintln(w, o.Against.text())
		return err
	}
	for _, l := range o.Legacy {
		fmt.Fprintln(w, l.Digest)
	}
	for _, r := range o.Results {
		if len(o.Results) > 1 {
			fmt.Fprintf(w, "%s %s\n", r.Digest, r.Profile)
			continue
		}
		fmt.Fprintln(w, r.Digest)
	}
	return nil
}

// loadFirmware reads path, or the installed library if it is empty.
func loadFirmware(path string, tee kbs.TEE) (*firmware.Bundle, error) {
	if path == "" {
		var err error
		if path, err = firmware.SystemSearch().Find(tee); err != nil {
			return nil, err
		}
	}
	return firmware.Load(path)
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}
