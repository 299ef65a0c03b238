package store

import (
	"errors"
	"strings"
)

// A principal is who holds tokens: a person, a CI. It outlives each of them, so
// that what was registered with one can be rotated or removed with the next.
const principalActor = "principal/"

// ErrNotOwner reports a change of what is another principal's.
var ErrNotOwner = errors.New("it belongs to another principal")

// Actor is who t's bearer is to audit log and ownership:
// principal/[TENANT.]NAME/ID, or token/ID, which stands for itself alone.
func (t Token) Actor() string {
	switch {
	case t.Principal == "":
		return "token/" + t.ID
	case t.Tenant == "":
		return principalActor + t.Principal + "/" + t.ID
	}
	return principalActor + t.Tenant + "." + t.Principal + "/" + t.ID
}

// ownerOf is what two actors have in common if they are one principal.
func ownerOf(actor string) string {
	if !strings.HasPrefix(actor, principalActor) {
		return actor
	}
	return actor[:strings.LastIndexByte(actor, '/')]
}

// SameOwner says whether two actors are one principal. Nobody owns nothing.
func SameOwner(a, b string) bool { return a != "" && ownerOf(a) == ownerOf(b) }

// Caller is who changes something.
type Caller struct {
	Actor string
	Any   bool // may change what is others', too: an admin
}

// may is ErrNotOwner unless c may change what by made.
func (c Caller) may(by string) error {
	if c.Any || SameOwner(by, c.Actor) {
		return nil
	}
	return ErrNotOwner
}
