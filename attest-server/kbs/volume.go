package kbs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/secret"
)

const (
	// VolumeKeyBytes is the length of the key that a volume's own keys follow
	// from: drawn in the TEE when the volume is used for the first time.
	VolumeKeyBytes = 32
	// MaxVolumeBody bounds a request about a volume.
	MaxVolumeBody = 4 << 10
	// MaxVolumesKept bounds what the server keeps of one workload: volumes that
	// no image uses any more are still there.
	MaxVolumesKept = 32
)

// ValidVolumeName says whether a volume may have that name.
func ValidVolumeName(s string) bool {
	return bounded.Name(s, 63, bounded.Letters+bounded.Digits, bounded.Letters+bounded.Digits+"_.-")
}

// A volume's data carries a generation, and so does the server's record of it.
// Each time the volume is opened, and when it is closed cleanly, both go up in
// two steps: the server stages the next generation, the guest writes it into the
// volume, the server takes it for the volume's. While one is staged, the volume
// may have either; so the power may go at any point.

// VolumeOpenRequest asks for a volume's key: POST
// /v1/workloads/{id}/volumes/{name}/open, in a granted session.
type VolumeOpenRequest struct {
	// Key becomes the volume's, if it has none yet, or its next, if its owner asks
	// for one: VolumeKeyBytes.
	Key []byte `json:"key"`
	// Rekeys says that the guest knows what to do with VolumeGrant.Next.
	Rekeys bool `json:"rekeys,omitempty"`
}

// VolumeGrant is the plaintext of the answer, which is sealed to the session's
// TEEKey under VolumeName.
type VolumeGrant struct {
	Key []byte `json:"key"`
	// Token stages and confirms generations of this volume, and nothing else,
	// until the volume is opened again.
	Token      string `json:"token"`
	Generation uint64 `json:"generation"`       // 0: the volume was never used
	Staged     uint64 `json:"staged,omitempty"` // what it may have besides
	// Next is the key that the guest is to encrypt the volume with anew, before it
	// is used, and say so, durably: POST .../rekeyed, with the token, without a body.
	// Until then Key is the volume's, and from then on Next, and no guest gets the
	// other any more.
	Next []byte `json:"next,omitempty"`
}

// What a guest finds where its volume should be.
const (
	VolumeEmpty      = "empty"      // nothing, or what was never taken into use
	VolumeGeneration = "generation" // its volume, of some generation
	VolumeDamaged    = "damaged"    // a volume of its name that does not open
	VolumeForeign    = "foreign"    // another volume's header
)

// VolumeStageRequest says what is there, and asks whether to go on: POST
// .../stage, with the grant's token.
type VolumeStageRequest struct {
	Found      string `json:"found"`
	Generation uint64 `json:"generation,omitempty"` // of VolumeGeneration
}

// VolumeStageAnswer is the generation to write into the volume.
type VolumeStageAnswer struct {
	Generation uint64 `json:"generation"`
}

// VolumeConfirmRequest says that the volume has the staged generation, durably:
// POST .../confirm, with the grant's token.
type VolumeConfirmRequest struct {
	Generation uint64 `json:"generation"`
	Closed     bool   `json:"closed,omitempty"` // nothing more is written to it
}

// VolumeConfirmAnswer is the answer to it: Confirmed.
type VolumeConfirmAnswer struct {
	Result string `json:"result"`
}

// VolumeStatus is what an owner may know of a volume.
type VolumeStatus struct {
	Name       string     `json:"name"`
	Generation uint64     `json:"generation"`
	Staged     uint64     `json:"staged,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	OpenedAt   *time.Time `json:"opened_at,omitempty"`
	Session    string     `json:"session,omitempty"`   // that opened it last
	ClosedAt   *time.Time `json:"closed_at,omitempty"` // cleanly, since it was opened last
	// Accepts is VolumeGeneration or VolumeEmpty, if the next guest may go on with
	// another generation, or with nothing.
	Accepts string `json:"accepts,omitempty"`
	// Refused is what a guest was refused last, since the volume was opened last.
	Refused string `json:"refused,omitempty"`
	// Rekey says that the next guest is to encrypt it under a new key.
	Rekey bool `json:"rekey,omitempty"`
}

// VolumeList is every volume of a workload: GET /v1/workloads/{id}/volumes.
type VolumeList struct {
	Volumes []VolumeStatus `json:"volumes"`
}

// VolumeAcceptRequest lets the next guest go on with what it finds: POST
// .../accept-rollback, by the owner.
type VolumeAcceptRequest struct {
	// Empty accepts that the volume's data is lost, and a new one takes its place;
	// else an older or newer state of the volume is accepted.
	Empty bool `json:"empty,omitempty"`
}

// VolumeName is the name under which a volume's grant is sealed: see ReleaseInfo.
func VolumeName(workloadID, volume string) string {
	return "workload/" + workloadID + "/volume/" + volume
}

func volumePath(workloadID, volume string) string {
	return workloadPath(workloadID) + "/volumes/" + url.PathEscape(volume)
}

// OpenVolume gets the session's workload's volume's key. fresh is what a volume
// that has none gets.
func (s *Session) OpenVolume(ctx context.Context, volume string, fresh secret.Bytes) (g VolumeGrant, err error) {
	id := s.req.WorkloadID
	var sealed Sealed
	in := VolumeOpenRequest{Key: fresh.Reveal(), Rekeys: true}
	if err := s.x.do(ctx, http.MethodPost, volumePath(id, volume)+"/open", in, &sealed, MaxAnswerBody); err != nil {
		return g, err
	}
	s.req.reportTime(sealed.ServerTime)
	plain, err := open(s.teeKey, sealed, ReleaseInfo(s.rd, VolumeName(id, volume)))
	if err != nil {
		return g, err
	}
	defer plain.Wipe()
	if err := UnmarshalStrict(plain.Reveal(), &g); err != nil {
		return VolumeGrant{}, errors.New("the volume's grant is not what a server makes") // the cause could quote it
	}
	if len(g.Key) != VolumeKeyBytes || g.Token == "" || len(g.Next) != 0 && len(g.Next) != VolumeKeyBytes {
		clear(g.Key)
		clear(g.Next)
		return VolumeGrant{}, errors.New("the volume's grant lacks its key or token")
	}
	return g, nil
}

// VolumeClient stages and confirms generations of one volume. It needs no
// session: the token is from the volume's grant.
type VolumeClient struct {
	Client           *Client
	Workload, Volume string
	Token            string
	OnRetry          func(why error, pause time.Duration) // may be nil
}

// Stage says what was found, and returns the generation to write.
func (v *VolumeClient) Stage(ctx context.Context, found string, generation uint64) (uint64, error) {
	var a VolumeStageAnswer
	if err := v.post(ctx, "/stage", VolumeStageRequest{Found: found, Generation: generation}, &a); err != nil {
		return 0, err
	}
	if a.Generation <= generation {
		return 0, fmt.Errorf("the server stages generation %d after %d", a.Generation, generation)
	}
	return a.Generation, nil
}

// Confirm says that the volume has that generation.
func (v *VolumeClient) Confirm(ctx context.Context, generation uint64, closed bool) error {
	var a VolumeConfirmAnswer
	if err := v.post(ctx, "/confirm", VolumeConfirmRequest{Generation: generation, Closed: closed}, &a); err != nil {
		return err
	}
	if a.Result != Confirmed {
		return fmt.Errorf("answer to the confirmation is %q, expected %q", a.Result, Confirmed)
	}
	return nil
}

// Rekeyed says that the volume is encrypted under the grant's Next. After an error
// the server may have heard it or not.
func (v *VolumeClient) Rekeyed(ctx context.Context) error {
	var a VolumeConfirmAnswer
	if err := v.post(ctx, "/rekeyed", nil, &a); err != nil {
		return err
	}
	if a.Result != Confirmed {
		return fmt.Errorf("answer about the volume's new key is %q, expected %q", a.Result, Confirmed)
	}
	return nil
}

func (v *VolumeClient) post(ctx context.Context, action string, in, out any) error {
	pins, err := ParsePins(v.Client.PinnedKeys)
	if err != nil {
		return err
	}
	q := inquiry{what: "volume " + v.Volume, wait: v.Client.Wait, final: isFinal, retry: ReleaseRequest{OnRetry: v.OnRetry}.retry}
	return q.ask(ctx, v.Client.URLs, func(base string) error {
		return v.Client.tryAt(ctx, base, pins, ReleaseRequest{WorkloadID: v.Workload}, func(base string, pins Pins) error {
			x, err := v.Client.connect(base, pins)
			if err != nil {
				return err
			}
			defer x.close()
			x.bearer = v.Token
			return x.do(ctx, http.MethodPost, volumePath(v.Workload, v.Volume)+action, in, out, MaxAnswerBody)
		})
	})
}

// Volumes are a workload's, as far as the server knows them.
func (c *AdminClient) Volumes(ctx context.Context, id string) ([]VolumeStatus, error) {
	var l VolumeList
	return l.Volumes, c.do(ctx, http.MethodGet, workloadPath(id)+"/volumes", nil, &l)
}

// AcceptRollback lets the workload's next guest go on with what it finds.
func (c *AdminClient) AcceptRollback(ctx context.Context, id, volume string, empty bool) (*VolumeStatus, error) {
	var s VolumeStatus
	if err := c.do(ctx, http.MethodPost, volumePath(id, volume)+"/accept-rollback", VolumeAcceptRequest{Empty: empty}, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// RekeyVolume has the workload's next guest encrypt the volume under a new key.
func (c *AdminClient) RekeyVolume(ctx context.Context, id, volume string) (*VolumeStatus, error) {
	var s VolumeStatus
	if err := c.do(ctx, http.MethodPost, volumePath(id, volume)+"/rekey", nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// ForgetVolume deletes a volume's key for good: its data can never be opened
// again.
func (c *AdminClient) ForgetVolume(ctx context.Context, id, volume string) error {
	return c.do(ctx, http.MethodDelete, volumePath(id, volume), nil, nil)
}
