package tdx

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/cursor"
	"github.com/ccrun/ccrun/hint"
)

// Sizes of a TD quote (Intel DCAP quoting library, appendix 3), in bytes.
const (
	tdHeaderSize     = 48
	tdBodySize       = 584 // TDX 1.0
	tdBody15Size     = 648 // TDX 1.5
	tdSignatureSize  = 64
	tdKeySize        = 64
	qeReportSize     = 384
	maxTDQuoteSize   = 64 << 10
	tdAttestationKey = 2 // ECDSA-256 with P-256
	tdTEEType        = 0x81
	tdCertQEReport   = 6
	tdCertPCKChain   = 5
)

// Body types of a quote.
const (
	tdBodyTDX10 = 2
	tdBodyTDX15 = 3
)

const intelQEVendor = "939a7233f79c4ca9940a0db3957f0607"

// tdQuote is a quote taken apart but not believed. Every field is a slice of
// the quote. go-tdx-guest's parser is not used: several of its slice
// expressions take sizes from the quote unchecked and panic.
type tdQuote struct {
	version    uint16
	bodyType   uint16
	signed     []byte // header and body
	body       []byte
	signature  []byte
	attestKey  []byte // of the quoting enclave: X, Y
	qeReport   []byte
	qeSign     []byte
	qeAuthData []byte
	pckChain   []byte // PEM
}

// parseQuote decodes a quote of version 4 or 5. What follows it is not looked
// at: drivers hand out whole buffers, and nothing there is signed.
func parseQuote(raw []byte) (*tdQuote, error) {
	if len(raw) > maxTDQuoteSize {
		return nil, quoteError(fmt.Errorf("%d bytes, expected at most %d", len(raw), maxTDQuoteSize))
	}
	q := &tdQuote{}
	r := cursor.New(raw)
	header := r.Take(tdHeaderSize)
	if r.Err != nil {
		return nil, quoteError(r.Err)
	}
	q.version = binary.LittleEndian.Uint16(header)
	if err := checkTDHeader(header); err != nil {
		return nil, err
	}
	q.readBody(r)
	if r.Err == nil {
		q.signed = raw[:r.Offset()]
	}
	auth := cursor.New(r.Take(int(r.U32())))
	if r.Err != nil {
		return nil, quoteError(r.Err)
	}
	if err := q.readAuthData(auth); err != nil {
		return nil, quoteError(err)
	}
	return q, nil
}

func checkTDHeader(h []byte) error {
	version := binary.LittleEndian.Uint16(h)
	if version != 4 && version != 5 {
		return verifier.Refuse("quote_version", "4 or 5", fmt.Sprint(version),
			"this quote version is newer or older than this program knows, or the bytes are no quote", nil)
	}
	if k := binary.LittleEndian.Uint16(h[2:]); k != tdAttestationKey {
		return verifier.Refuse("signature_algorithm", "2 (ECDSA P-256)", fmt.Sprint(k),
			"have the host's quoting enclave sign with ECDSA P-256, the only one that Intel's DCAP has (3 is ECDSA P-384)", nil)
	}
	if t := binary.LittleEndian.Uint32(h[4:]); t != tdTEEType {
		return verifier.Refuse("tee", "TEE type 81h (TDX)", fmt.Sprintf("%xh", t), "the quote is of another TEE, such as SGX", nil)
	}
	if v := hex.EncodeToString(h[12:28]); v != intelQEVendor {
		return verifier.Refuse("qe_vendor", intelQEVendor+" (Intel)", v, "the quote is not made by Intel's quoting enclave", nil)
	}
	return nil
}

// readBody reads the TD report; version 5 puts its type and size first.
func (q *tdQuote) readBody(r *cursor.Cursor) {
	size := tdBodySize
	q.bodyType = tdBodyTDX10
	if q.version == 5 {
		q.bodyType = r.U16()
		if q.bodyType == tdBodyTDX15 {
			size = tdBody15Size
		}
		if n := int(r.U32()); r.Err == nil && (q.bodyType != tdBodyTDX10 && q.bodyType != tdBodyTDX15 || n != size) {
			r.Err = fmt.Errorf("body of type %d and %d bytes, expected 2 of %d or 3 of %d", q.bodyType, n, tdBodySize, tdBody15Size)
		}
	}
	q.body = r.Take(size)
}

func (q *tdQuote) readAuthData(r *cursor.Cursor) error {
	q.signature = r.Take(tdSignatureSize)
	q.attestKey = r.Take(tdKeySize)
	if t := r.U16(); r.Err == nil && t != tdCertQEReport {
		return hint.With(fmt.Errorf("certification data of type %d, expected %d", t, tdCertQEReport), certificationHint)
	}
	if n := r.U32(); r.Err == nil && int(n) != len(r.Rest()) {
		return fmt.Errorf("certification data of %d bytes, expected %d", n, len(r.Rest()))
	}
	q.qeReport = r.Take(qeReportSize)
	q.qeSign = r.Take(tdSignatureSize)
	q.qeAuthData = r.Take(int(r.U16()))
	if t := r.U16(); r.Err == nil && t != tdCertPCKChain {
		return hint.With(fmt.Errorf("QE certification data of type %d, expected %d (PCK certificate chain)", t, tdCertPCKChain), certificationHint)
	}
	q.pckChain = r.Take(int(r.U32()))
	if r.Err == nil && len(r.Rest()) != 0 {
		return errors.New("data after the PCK certificate chain")
	}
	return r.Err
}

// certificationHint is for quotes that name the platform instead of proving it.
const certificationHint = "the host's quote generation service (QGS) has no PCK certificate: let it reach Intel's PCS or a PCCS " +
	"that knows the platform (qcnl.conf), and register the platform there; types 1 to 3 only name it"

func quoteError(err error) error {
	next := cmp.Or(hint.Of(err), "send the whole quote as configfs-tsm's outblob or the QGS gave it: it is cut off, or something else")
	return verifier.Refuse("evidence_format", "a well-formed TD quote", err.Error(), next, err)
}

// claims decodes the TD report.
func (q *tdQuote) claims() *verifier.TDXClaims {
	b := q.body
	c := &verifier.TDXClaims{
		QuoteVersion: q.version, BodyType: q.bodyType,
		TEETCBSVN: b[0:16], MRSEAM: b[16:64], MRSignerSEAM: b[64:112], SEAMAttributes: b[112:120],
		TDAttributes: binary.LittleEndian.Uint64(b[120:]), XFAM: binary.LittleEndian.Uint64(b[128:]),
		MRTD: b[136:184], MRConfigID: b[184:232], MROwner: b[232:280], MROwnerConfig: b[280:328],
	}
	for i := range c.RTMRs {
		c.RTMRs[i] = b[328+48*i : 376+48*i]
	}
	if q.bodyType == tdBodyTDX15 {
		c.TEETCBSVN2, c.MRServiceTD = b[584:600], b[600:648]
	}
	return c
}

func (q *tdQuote) reportData() []byte { return q.body[520:584] }

// qe is the quoting enclave's report (SGX REPORT body).
func (q *tdQuote) qe() qeReport {
	b := q.qeReport
	return qeReport{
		miscSelect: b[16:20], attributes: b[48:64], mrSigner: b[128:160],
		prodID: binary.LittleEndian.Uint16(b[256:]), svn: binary.LittleEndian.Uint16(b[258:]), reportData: b[320:384],
	}
}

type qeReport struct {
	miscSelect, attributes, mrSigner, reportData []byte
	prodID, svn                                  uint16
}

// IsQuote says whether b starts as a TD quote does, whatever its version.
func IsQuote(b []byte) bool {
	return len(b) > tdHeaderSize && bytes.Equal(b[4:8], []byte{tdTEEType, 0, 0, 0}) && b[1] == 0 && b[0] >= 3 && b[0] <= 9
}
