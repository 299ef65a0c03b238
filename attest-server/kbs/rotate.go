package kbs

import (
	"context"
	"net/http"
	"time"
)

// MaxRotateBody bounds a request to rotate, in bytes: a keyslot area of half a
// MiB in base64.
const MaxRotateBody = 1 << 20

// RotateRequest changes a workload's DiskKey in two steps, POST
// /v1/workloads/{id}/rotate. Exactly one member is set.
type RotateRequest struct {
	Stage  *RotateStage  `json:"stage,omitempty"`
	Commit *RotateCommit `json:"commit,omitempty"`
	Abort  *RotateAbort  `json:"abort,omitempty"`
}

// RotateStage asks for the disk's keyslot under a new DiskKey, which the
// server draws and keeps beside the old one. Staging again before the commit
// gives the same DiskKey and rotation.
type RotateStage struct {
	Keyslot Keyslot `json:"keyslot"`
}

// RotateCommit makes the staged DiskKey the workload's only one. Committing
// the last rotation again changes nothing.
type RotateCommit struct {
	Rotation string `json:"rotation"`
	Image    string `json:"image,omitempty"` // manifest digest of the rotated image, for people
}

// RotateAbort forgets the staged DiskKey: an image that was rotated to it can
// never be opened again.
type RotateAbort struct {
	Rotation string `json:"rotation"`
}

// Keyslot is a LUKS2 keyslot as it stands on a disk: a volume key of KeyBytes,
// split over 4000 stripes by SHA-256, encrypted with AES-256-XTS-plain64 in
// sectors of 512 bytes; and what the volume key's PBKDF2-SHA256 is.
type Keyslot struct {
	KDF              KeyslotKDF `json:"kdf"`
	Area             []byte     `json:"area"`
	KeyBytes         int        `json:"key_bytes"`
	DigestSalt       []byte     `json:"digest_salt"`
	DigestIterations int        `json:"digest_iterations"`
	Digest           []byte     `json:"digest"`
}

// KeyslotKDF is how a keyslot stretches its DiskKey.
type KeyslotKDF struct {
	Type       string `json:"type"` // pbkdf2 (SHA-256) or argon2id
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
	MemoryKiB  int    `json:"memory_kib,omitempty"`
	Threads    int    `json:"threads,omitempty"`
}

// RotateAnswer is the answer to a RotateRequest. KDF and Area are of a stage
// alone, and left out if the keyslot is under the staged DiskKey already.
type RotateAnswer struct {
	Rotation string      `json:"rotation"`
	Already  bool        `json:"already,omitempty"`
	KDF      *KeyslotKDF `json:"kdf,omitempty"`
	Area     []byte      `json:"area,omitempty"`
	StagedAt *time.Time  `json:"staged_at,omitempty"`
}

// Rotate takes one step of a rotation.
func (c *AdminClient) Rotate(ctx context.Context, id string, req RotateRequest) (*RotateAnswer, error) {
	var a RotateAnswer
	if err := c.do(ctx, http.MethodPost, workloadPath(id)+"/rotate", req, &a); err != nil {
		return nil, err
	}
	return &a, nil
}
