package tdx

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tdx-guest/pcs"

	"github.com/ccrun/ccrun/attest-server/verifier"
)

// tcbResult is the outcome of Intel's TCB evaluation.
type tcbResult struct {
	platform, module, qe, overall string
	advisories                    []string
	date                          string
	short                         []string // of UpToDate
}

// evaluateTCB evaluates the TCB that the TD was launched under and, from TDX
// 1.5 on, the one it runs under since the module was updated beneath it. If
// only the former is out of date, a new launch of the TD helps, and the status
// says so, as in Intel's quote verification library (TDRelaunchCheck).
func evaluateTCB(v *VerifiedCollateral, c *verifier.TDXClaims, ext *pcs.PckExtensions, qe qeReport) (tcbResult, error) {
	launch, err := evaluateSVN(v, c, c.TEETCBSVN, ext, qe)
	if err != nil || len(c.TEETCBSVN2) == 0 {
		return launch, err
	}
	current, err := evaluateSVN(v, c, c.TEETCBSVN2, ext, qe)
	if err != nil {
		return current, err
	}
	launch.overall = relaunch(launch.overall, current.overall)
	return launch, nil
}

// evaluateSVN follows Intel's algorithm ("Get TDX TCB Info", notes): the level
// of the platform by SGX, PCE and TDX components, that of the TDX module by
// its own identity from TDX 1.5 on, that of the quoting enclave, and the worst
// of the three. go-tdx-guest lets the module's status replace the platform's,
// so that a revoked platform passes: hence this.
func evaluateSVN(v *VerifiedCollateral, c *verifier.TDXClaims, svn verifier.Hex, ext *pcs.PckExtensions, qe qeReport) (tcbResult, error) {
	r := tcbResult{module: verifier.UpToDate}
	level, err := platformLevel(v.tcb.TcbLevels, svn, ext.TCB)
	if err != nil {
		return r, err
	}
	r.platform, r.date = string(level.TcbStatus), level.TcbDate
	if r.platform != verifier.UpToDate {
		r.short = platformShort(v.tcb.TcbLevels, svn, ext.TCB)
	}
	r.advisories = append(r.advisories, level.AdvisoryIDs...)
	if err := checkModule(v.tcb.TdxModule.Mrsigner, v.tcb.TdxModule.Attributes, v.tcb.TdxModule.AttributesMask, c); err != nil {
		return r, err
	}
	if svn[1] > 0 {
		m, err := moduleLevel(v.tcb.TdxModuleIdentities, svn, c)
		if err != nil {
			return r, err
		}
		r.module = string(m.TcbStatus)
		if r.module != verifier.UpToDate {
			r.short = append(r.short, moduleShort(v.tcb.TdxModuleIdentities, svn)...)
		}
		r.advisories = append(r.advisories, m.AdvisoryIDs...)
	}
	q, err := qeLevel(v.qe, qe)
	if err != nil {
		return r, err
	}
	r.qe = string(q.TcbStatus)
	if best := bestEnclave(v.qe.TcbLevels); r.qe != verifier.UpToDate && best > uint32(q.Tcb.Isvsvn) {
		r.short = append(r.short, fmt.Sprintf("quoting enclave SVN below %d", best))
	}
	r.advisories = append(r.advisories, q.AdvisoryIDs...)
	slices.Sort(r.advisories)
	r.advisories = slices.Compact(r.advisories)
	r.overall = worsen(worsen(r.platform, r.module), r.qe)
	return r, nil
}

// platformLevel is the first level whose components the platform reaches. The
// first two TDX components count only for modules of version 0: later ones
// have an identity of their own.
func platformLevel(levels []pcs.TcbLevel, tee verifier.Hex, tcb pcs.PckCertTCB) (*pcs.TcbLevel, error) {
	first := 0
	if tee[1] > 0 {
		first = 2
	}
	for i := range levels {
		l := &levels[i].Tcb
		if svnsReach(tcb.CPUSvnComponents, l.SgxTcbcomponents, 0) && tcb.PCESvn >= l.Pcesvn && svnsReach(tee, l.TdxTcbcomponents, first) {
			return &levels[i], nil
		}
	}
	return nil, verifier.Refuse("tcb_level", "a TCB level that Intel lists", fmt.Sprintf("components %x, PCE %d, TDX %s below every level", tcb.CPUSvnComponents, tcb.PCESvn, tee),
		"the machine's firmware is older than anything Intel supports: update it", nil)
}

func svnsReach(got []byte, want []pcs.TcbComponent, first int) bool {
	if len(got) != len(want) {
		return false
	}
	for i := first; i < len(got); i++ {
		if got[i] < want[i].Svn {
			return false
		}
	}
	return true
}

// moduleLevel is the level of a TDX module by the identity of its version,
// which is svn[1].
func moduleLevel(ids []pcs.TdxModuleIdentity, svn verifier.Hex, c *verifier.TDXClaims) (*pcs.TcbLevel, error) {
	name := fmt.Sprintf("TDX_%02x", svn[1])
	for i := range ids {
		if !strings.EqualFold(ids[i].ID, name) {
			continue
		}
		if err := checkModule(ids[i].Mrsigner, ids[i].Attributes, ids[i].AttributesMask, c); err != nil {
			return nil, err
		}
		for j := range ids[i].TcbLevels {
			if uint32(svn[0]) >= ids[i].TcbLevels[j].Tcb.Isvsvn {
				return &ids[i].TcbLevels[j], nil
			}
		}
		return nil, verifier.Refuse("tdx_module", "a TCB level of "+name, fmt.Sprintf("SVN %d below every level", svn[0]),
			"the TDX module is older than anything Intel supports: update it", nil)
	}
	return nil, verifier.Refuse("tdx_module", "a TDX module that Intel lists", name, "fetch newer collateral, or update the machine", nil)
}

func checkModule(signer, attributes, mask pcs.HexBytes, c *verifier.TDXClaims) error {
	if !bytes.Equal(signer.Bytes, c.MRSignerSEAM) {
		return verifier.Refuse("mr_signer_seam", fmt.Sprintf("%x", signer.Bytes), c.MRSignerSEAM.String(), "the TDX module is not signed by Intel", nil)
	}
	if !maskedEqual(c.SEAMAttributes, attributes.Bytes, mask.Bytes) {
		return verifier.Refuse("seam_attributes", fmt.Sprintf("%x under mask %x", attributes.Bytes, mask.Bytes), c.SEAMAttributes.String(),
			"the TDX module is a debug build", nil)
	}
	return nil
}

func maskedEqual(got, want, mask []byte) bool {
	if len(got) != len(want) || len(got) != len(mask) {
		return false
	}
	for i := range got {
		if got[i]&mask[i] != want[i]&mask[i] {
			return false
		}
	}
	return true
}

// qeLevel checks that the quoting enclave is Intel's and finds its TCB level.
func qeLevel(id pcs.EnclaveIdentity, q qeReport) (*pcs.TcbLevel, error) {
	misc := slices.Clone(q.miscSelect) // little endian in the report, big endian in JSON
	slices.Reverse(misc)
	switch {
	case !bytes.Equal(id.Mrsigner.Bytes, q.mrSigner):
		return nil, qeError("MRSIGNER "+fmt.Sprintf("%x", id.Mrsigner.Bytes), fmt.Sprintf("%x", q.mrSigner))
	case id.IsvProdID != q.prodID:
		return nil, qeError(fmt.Sprintf("ISVPRODID %d", id.IsvProdID), fmt.Sprint(q.prodID))
	case !maskedEqual(misc, id.Miscselect.Bytes, id.MiscselectMask.Bytes):
		return nil, qeError(fmt.Sprintf("MISCSELECT %x under mask %x", id.Miscselect.Bytes, id.MiscselectMask.Bytes), fmt.Sprintf("%x", misc))
	case !maskedEqual(q.attributes, id.Attributes.Bytes, id.AttributesMask.Bytes):
		return nil, qeError(fmt.Sprintf("attributes %x under mask %x", id.Attributes.Bytes, id.AttributesMask.Bytes), fmt.Sprintf("%x", q.attributes))
	}
	for i := range id.TcbLevels {
		if uint32(q.svn) >= id.TcbLevels[i].Tcb.Isvsvn {
			return &id.TcbLevels[i], nil
		}
	}
	return nil, qeError("an ISVSVN that Intel lists", fmt.Sprintf("%d", q.svn))
}

func qeError(expected, got string) error {
	return verifier.Refuse("qe_identity", expected, got, "the quote is not made by Intel's TD quoting enclave, or by one long out of date", nil)
}

// relaunch combines the status at launch with that of now. One that is worse
// now than at launch, as no update should make it, counts.
func relaunch(launch, current string) string {
	if severity(current) > severity(launch) {
		return current
	}
	good := current == verifier.UpToDate || current == "SWHardeningNeeded"
	config := current == "ConfigurationNeeded" || current == "ConfigurationAndSWHardeningNeeded"
	switch {
	case launch == verifier.OutOfDate && good:
		return verifier.TDRelaunchAdvised
	case launch == verifier.OutOfDate && config, launch == verifier.OutOfDateConfig && (good || config):
		return verifier.TDRelaunchAdvisedConfig
	}
	return launch
}

// severity orders statuses; unknown ones are as bad as revoked.
func severity(status string) int {
	order := []string{verifier.UpToDate, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", verifier.OutOfDate, verifier.OutOfDateConfig, verifier.Revoked}
	if i := slices.Index(order, status); i >= 0 {
		return i
	}
	return len(order)
}

// worsen combines the platform's status with that of a part of it, as Intel's
// quote verification library does. A part is UpToDate, OutOfDate or Revoked;
// anything else counts as OutOfDate.
func worsen(status, part string) string {
	switch {
	case part == verifier.UpToDate:
		return status
	case part == verifier.Revoked || status == verifier.Revoked:
		return verifier.Revoked
	case status == "ConfigurationNeeded" || status == "ConfigurationAndSWHardeningNeeded" || status == verifier.OutOfDateConfig:
		return verifier.OutOfDateConfig
	default:
		return verifier.OutOfDate
	}
}
