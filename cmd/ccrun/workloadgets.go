package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
)

// shownWorkload is a workload and what its guests may get beside the DiskKey.
type shownWorkload struct {
	*kbs.WorkloadStatus
	Secrets       []kbs.SecretStatus `json:"secrets,omitempty"`
	MoreSecrets   bool               `json:"more_secrets,omitempty"`
	Configuration *kbs.ConfigVersion `json:"configuration,omitempty"`
	Volumes       []kbs.VolumeStatus `json:"volumes,omitempty"`
}

// whatItMayGet adds it, as far as the server knows of such things: an older one
// does not.
func whatItMayGet(ctx context.Context, client *kbs.AdminClient, s *kbs.WorkloadStatus) (*shownWorkload, error) {
	shown, id := &shownWorkload{WorkloadStatus: s}, kbs.WorkloadOf(s.Registration.WorkloadID)
	if s.Registration.Type != kbs.TypeNative {
		return shown, nil
	}
	secrets, err := client.WorkloadSecrets(ctx, id)
	if err == nil {
		shown.Secrets, shown.MoreSecrets = secrets.Secrets, secrets.More
	} else if !isNotFound(err) {
		return nil, fmt.Errorf("listing its secrets: %w", err)
	}
	config, err := client.ConfigMeta(ctx, id)
	if err == nil && len(config.Versions) > 0 {
		shown.Configuration = &config.Versions[0]
	} else if err != nil && !isNotFound(err) {
		return nil, fmt.Errorf("reading its configuration: %w", err)
	}
	if shown.Volumes, err = client.Volumes(ctx, id); err != nil && !isNotFound(err) {
		return nil, fmt.Errorf("listing its volumes: %w", err)
	}
	return shown, nil
}

func isNotFound(err error) bool {
	var p *kbs.ProblemError
	return errors.As(err, &p) && p.Code == kbs.CodeNotFound
}

func (s *shownWorkload) print(w io.Writer) {
	for _, x := range s.Secrets {
		lacks := ""
		if len(x.Missing) > 0 {
			lacks = ", not before " + strings.Join(x.Missing, " and ") + " approve"
		}
		fmt.Fprintf(w, "may get\t%s, version %d, %d bytes%s\n", x.Name, x.Version, x.SizeBytes, lacks)
	}
	if s.MoreSecrets {
		fmt.Fprintf(w, "may get\tmore than these %d\n", len(s.Secrets))
	}
	if c := s.Configuration; c != nil {
		args := ""
		if c.Args != nil {
			args = fmt.Sprintf(", %d arguments", *c.Args)
		}
		fmt.Fprintf(w, "configuration\tversion %d: variables [%s]%s\n", c.Version, face.Printable(strings.Join(c.Env, " ")), args)
	}
	for _, v := range s.Volumes {
		fmt.Fprintf(w, "volume\t%s, generation %d, opened %s\n", v.Name, v.Generation, face.Time(v.OpenedAt, "never"))
	}
}
