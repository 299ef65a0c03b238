package kbs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/ccrun/ccrun/bounded"
)

// MaxReportBody bounds a GuestReport.
const MaxReportBody = 8 << 10

const maxReportText = 2 << 10

// GuestReport is what an attested guest tells its owner, and nobody else, of
// why it goes no further: POST /v1/workloads/{id}/report. It holds names, never
// values.
type GuestReport struct {
	Refused string `json:"refused"`
}

// Validate refuses what is too long to keep, or no text.
func (r *GuestReport) Validate() error {
	switch {
	case r.Refused == "":
		return errors.New("report says nothing")
	case len(r.Refused) > maxReportText:
		return fmt.Errorf("report of %d bytes, at most %d allowed", len(r.Refused), maxReportText)
	case !utf8.ValidString(r.Refused):
		return errors.New("report is no UTF-8 text")
	}
	return nil
}

// ReportAnswer is the answer to a GuestReport.
type ReportAnswer struct {
	Session string `json:"session"` // public session number for `ccrun explain`
}

// Report tells the workload's owner why the guest refuses to go on, and returns
// the number under which he finds it.
func (s *Session) Report(ctx context.Context, why string) (session string, err error) {
	var a ReportAnswer
	r := GuestReport{Refused: strings.ToValidUTF8(why[:min(len(why), maxReportText)], "")}
	err = s.x.do(ctx, http.MethodPost, workloadPath(s.req.WorkloadID)+"/report", r, &a, MaxAnswerBody)
	if err == nil && !bounded.Name(a.Session, 64, bounded.Digits+bounded.Lower, bounded.Digits+bounded.Lower) { // it goes to the console
		return "", fmt.Errorf("answer to the report has session number %.40q", a.Session)
	}
	return a.Session, err
}
