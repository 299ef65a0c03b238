package main

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func certsFetch() *cli.Command {
	return &cli.Command{
		Name:  "fetch",
		Usage: "fetch endorsements from AMD's KDS, Intel's PCS, or mirrors of them",
		Description: "For Evidence, for a chip, or for an Intel platform; without any, CRLs and collateral of all that\n" +
			"the cache knows are fetched anew. Of SNP: VCEK, ASK, ARK and CRL. Of TDX: TCB info, QE identity and\n" +
			"both CRLs. A VLEK comes from the cloud provider, with the Evidence. If what is there after that\n" +
			"has expired, as from a mirror that nobody renews, the exit status is 1.\n\nExample:\n" +
			"   ccrun certs fetch --evidence report.bin\n" +
			"   ccrun certs fetch --product Milan --chip-id $HEX --tcb bootloader=4,tee=0,snp=24,microcode=219\n" +
			"   ccrun certs fetch --fmspc 90c06f000000 --pcs-url https://pccs.example.com:8081 --ca pccs.pem",
		Flags: []cli.Flag{
			certsDirFlag(), face.FormatFlag(),
			&cli.StringSliceFlag{Name: "evidence", Usage: "`FILE`: SNP report, TD quote or CoCo evidence JSON (repeatable)"},
			&cli.StringFlag{Name: "product", Usage: "AMD product `LINE`: Milan, Genoa or Turin"},
			&cli.StringFlag{Name: "chip-id", Usage: "`HEX`, 64 bytes, on Turin 8"},
			&cli.StringFlag{Name: "tcb", Usage: "`TCB` as in bootloader=4,tee=0,snp=24,microcode=219 and on Turin fmc=1"},
			&cli.StringFlag{Name: "fmspc", Usage: "Intel platform, 12 `HEX` digits"},
			&cli.StringFlag{Name: "pck-ca", Value: "platform", Usage: "`CA` of the platform's PCK: platform or processor"},
			&cli.StringFlag{Name: "kds-url", Value: endorsements.DefaultKDS, Usage: "`URL` of AMD's KDS or a mirror"},
			&cli.StringFlag{Name: "update", Usage: "which TCB data of Intel's, `WHICH`: early, of the day of an advisory, or standard, of when firmware had time to reach machines (default: Intel's, standard)"},
			&cli.StringFlag{Name: "pcs-url", Value: endorsements.DefaultPCS, Usage: "`URL` of Intel's PCS or a PCCS"},
			&cli.StringFlag{Name: "root-crl-url", Usage: "`URL` of Intel's root CRL (default: Intel's, or the PCCS's)"},
			&cli.StringFlag{Name: "ca", Usage: "PEM `FILE` to trust for TLS with a mirror"},
		},
		Action: fetchCerts,
	}
}

func fetchCerts(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	wanted, err := fetchSubjects(c)
	if err != nil {
		return err
	}
	online, err := openOnline(c)
	if err != nil {
		return err
	}
	before := map[string]bool{}
	for _, e := range online.Cache.List() {
		before[e.SHA256] = true
	}
	if len(wanted) == 0 && !c.IsSet("evidence") && len(online.Cache.Known()) == 0 {
		return face.Usagef("the cache is empty: say what to fetch, with --evidence, --product or --fmspc")
	}
	wanted, err = fetchAll(c, online, wanted)
	if err != nil {
		err = fmt.Errorf("fetching endorsements: %w", err)
		if errors.Is(err, verifier.ErrBusy) {
			err = hint.With(err, "the service is unreachable or asks for a pause: try again later, or name a mirror with --kds-url or --pcs-url")
		}
		return err
	}
	fresh := []*endorsements.Endorsement{}
	for _, e := range online.Cache.List() {
		if !before[e.SHA256] {
			fresh = append(fresh, e)
		}
	}
	if len(fresh) == 0 {
		fmt.Fprintln(c.App.ErrWriter, "ccrun: nothing newer than what the cache holds")
	}
	if err := printCerts(c, fresh, time.Now()); err != nil {
		return err
	}
	return expired(online.Cache, wanted, time.Now())
}

// expired is an error for what is no good although it was fetched just now: a
// mirror that nobody renews answers all the same, and a timer must notice.
func expired(cache *endorsements.Cache, wanted []endorsements.Subject, now time.Time) error {
	var stale []string
	for _, e := range cache.List() {
		its := func(s endorsements.Subject) bool { return s.Concerns(e) }
		if e.Renewable() && now.After(e.Expires) && (len(wanted) == 0 || slices.ContainsFunc(wanted, its)) {
			stale = append(stale, fmt.Sprintf("%s of %s expired %s", e.Kind, e.Name(), e.Expires.UTC().Format(time.RFC3339)))
		}
	}
	if len(stale) == 0 {
		return nil
	}
	return hint.With(fmt.Errorf("fetching endorsements: got no newer than what has expired: %s", strings.Join(stale, "; ")),
		"a mirror serves old data: refresh it (a PCCS: `pccsadmin refresh`), or name another with --pcs-url or --kds-url; check this machine's clock")
}

// fetchAll fetches for every Evidence file, then for what the flags name, or
// if nothing is named for what the cache knows. It returns what that was; nothing
// stands for all.
func fetchAll(c *cli.Context, online *endorsements.Online, wanted []endorsements.Subject) (all []endorsements.Subject, err error) {
	for _, name := range c.StringSlice("evidence") {
		s, err := fetchForEvidence(c, online, name)
		if err != nil {
			return nil, fmt.Errorf("for %s: %w", name, err)
		}
		all = append(all, s)
	}
	for _, s := range wanted {
		if err := online.Fetch(c.Context, s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, online.Refresh(c.Context)
}

// fetchForEvidence keeps the certificates that came along, and fetches the
// rest. A report of version 2 may be of several product lines: one will do.
func fetchForEvidence(c *cli.Context, online *endorsements.Online, name string) (of endorsements.Subject, err error) {
	b, err := face.Read(c, name, evidence.MaxBytes)
	if err != nil {
		return of, err
	}
	parsed, err := evidence.Parse(b)
	if err != nil {
		return of, err
	}
	own, err := parsed.Certificates()
	if err != nil {
		return of, err
	}
	for _, der := range own {
		if _, _, err := online.Cache.Add(der); err != nil {
			return of, fmt.Errorf("certificate in the evidence: %w", err)
		}
	}
	subjects, err := endorsements.Subjects(parsed.Evidence)
	if err != nil {
		return of, err
	}
	err = verifier.ErrNoEndorsement
	for _, s := range subjects {
		of = s
		if s.Signer == verifier.VCEK && len(s.ChipID) == 0 {
			return of, hint.With(errors.New("the report's chip id is masked"), snp.MaskedHint)
		}
		if err = online.Fetch(c.Context, s); !errors.Is(err, verifier.ErrNoEndorsement) {
			break
		}
	}
	if err == nil && len(own) == 0 && subjects[0].Signer == verifier.VLEK {
		fmt.Fprintln(c.App.ErrWriter, "ccrun: the report is signed by a VLEK: ask the cloud provider for its certificate, and import it")
	}
	return of, err
}

func fetchSubjects(c *cli.Context) ([]endorsements.Subject, error) {
	var all []endorsements.Subject
	if f := c.String("fmspc"); f != "" {
		ca := c.String("pck-ca")
		if b, err := hex.DecodeString(f); err != nil || len(b) != 6 {
			return nil, face.Usagef("--fmspc %q: expected 12 hex digits", f)
		}
		if ca != "platform" && ca != "processor" {
			return nil, face.Usagef("--pck-ca %q: expected platform or processor", ca)
		}
		all = append(all, endorsements.Subject{FMSPC: f, CA: ca})
	}
	product := c.String("product")
	if (c.IsSet("chip-id") || c.IsSet("tcb")) && product == "" || c.IsSet("chip-id") != c.IsSet("tcb") {
		return nil, face.Usagef("--chip-id and --tcb go together, and with --product")
	}
	switch product {
	case "":
		return all, nil
	case "Milan", "Genoa", "Turin":
	default:
		return nil, face.Usagef("--product %q: expected Milan, Genoa or Turin", product)
	}
	s := endorsements.Subject{EndorsementKey: snp.EndorsementKey{Product: product}}
	if c.IsSet("chip-id") {
		want := 64
		if product == "Turin" {
			want = 8
		}
		id, err := hex.DecodeString(c.String("chip-id"))
		if err != nil || len(id) != want {
			return nil, face.Usagef("--chip-id: expected %d hex digits for %s", 2*want, product)
		}
		if s.TCB, err = parseTCB(c.String("tcb"), product == "Turin"); err != nil {
			return nil, err
		}
		s.ChipID, s.Signer = id, verifier.VCEK
	}
	return append(all, s), nil
}

// parseTCB reads NAME=N pairs, each name once, and all of them: a component
// left out would name another TCB.
func parseTCB(s string, fmc bool) (kbs.SNPTCB, error) {
	var t kbs.SNPTCB
	fields := map[string]*uint8{"bootloader": &t.Bootloader, "tee": &t.TEE, "snp": &t.SNP, "microcode": &t.Microcode}
	if fmc {
		fields["fmc"] = &t.FMC
	}
	for _, pair := range strings.Split(s, ",") {
		name, value, _ := strings.Cut(pair, "=")
		n, err := strconv.ParseUint(value, 10, 8)
		if fields[name] == nil || err != nil {
			return t, face.Usagef("--tcb: %q, expected NAME=N with N up to 255, each of bootloader, tee, snp, microcode (on Turin fmc) once", pair)
		}
		*fields[name] = uint8(n)
		delete(fields, name)
	}
	for name := range fields {
		return t, face.Usagef("--tcb: %s is missing", name)
	}
	return t, nil
}

func openOnline(c *cli.Context) (*endorsements.Online, error) {
	cache, err := openCerts(c)
	if err != nil {
		return nil, err
	}
	var roots *x509.CertPool
	if name := c.String("ca"); name != "" {
		if roots, err = face.Roots("--ca", name); err != nil {
			return nil, err
		}
	}
	client := endorsements.NewClient(30*time.Second, roots)
	fetcher := func() *endorsements.Fetcher {
		return endorsements.NewFetcher(endorsements.FetchOptions{Client: client})
	}
	kds, err := endorsements.NewKDS(endorsements.KDSOptions{BaseURL: c.String("kds-url"), Cache: cache, Fetcher: fetcher()})
	if err != nil {
		return nil, face.WithStatus(face.Misused, err)
	}
	pcs, err := endorsements.NewPCS(endorsements.PCSOptions{BaseURL: c.String("pcs-url"), RootCRLURL: c.String("root-crl-url"), Update: c.String("update"), Cache: cache, Fetcher: fetcher()})
	if err != nil {
		return nil, face.WithStatus(face.Misused, err)
	}
	return &endorsements.Online{Cache: cache, KDS: kds, PCS: pcs}, nil
}
