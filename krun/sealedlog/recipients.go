package sealedlog

import (
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
)

// MaxRecipients bounds the line with the key: a post-quantum recipient takes
// 1.6 KB of it.
const MaxRecipients = 16

// ParseRecipients takes age's own recipients, classic (age1...) or post-quantum
// (age1pq1...), each once and as age writes it. age does not mix the two kinds:
// the classic one would be the weaker way to the same key.
func ParseRecipients(list []string) ([]age.Recipient, error) {
	if len(list) == 0 {
		return nil, errors.New("no log recipient")
	}
	if len(list) > MaxRecipients {
		return nil, fmt.Errorf("%d log recipients, at most %d allowed", len(list), MaxRecipients)
	}
	seen, hybrids := map[string]bool{}, 0
	var parsed []age.Recipient
	for _, s := range list {
		r, hybrid, err := parseRecipient(s)
		if err != nil {
			return nil, err
		}
		if seen[s] {
			return nil, fmt.Errorf("log recipient %.20s... given twice", s)
		}
		seen[s] = true
		if hybrid {
			hybrids++
		}
		parsed = append(parsed, r)
	}
	if hybrids != 0 && hybrids != len(list) {
		return nil, errors.New("post-quantum (age1pq1...) and classic log recipients: the classic ones would be the weaker way to the same key")
	}
	return parsed, nil
}

func parseRecipient(s string) (r age.Recipient, hybrid bool, err error) {
	var text fmt.Stringer
	if hybrid = strings.HasPrefix(s, "age1pq1"); hybrid {
		var h *age.HybridRecipient
		h, err = age.ParseHybridRecipient(s)
		r, text = h, h
	} else {
		var x *age.X25519Recipient
		x, err = age.ParseX25519Recipient(s)
		r, text = x, x
	}
	if err != nil || text.String() != s {
		return nil, false, fmt.Errorf("log recipient %.70q: expected one of age's own, as age-keygen prints it (age1... or age1pq1...)", s)
	}
	return r, hybrid, nil
}
