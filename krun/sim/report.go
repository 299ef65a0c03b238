package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// The report port's protocol. The guest writes 64 bytes of report data; the
// answer is the report's length, the report, the certificate table's length,
// the table; lengths are 32-bit little endian. Any number of times.

// Signer signs the guest's report data with the launch it belongs to.
type Signer func(kbs.ReportData) (kbs.Evidence, error)

// serveReports answers requests on port until it ends.
func serveReports(port io.ReadWriter, sign Signer) error {
	for {
		var data kbs.ReportData
		_, err := io.ReadFull(port, data[:])
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil // the guest is gone
		case err != nil:
			return fmt.Errorf("reading report request: %w", err)
		}
		ev, err := sign(data)
		if err != nil {
			return err
		}
		if _, err := port.Write(appendAnswer(nil, ev)); err != nil {
			return fmt.Errorf("answering report request: %w", err)
		}
	}
}

func appendAnswer(b []byte, ev kbs.Evidence) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ev.Report)))
	b = append(b, ev.Report...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ev.Certificates)))
	return append(b, ev.Certificates...)
}
