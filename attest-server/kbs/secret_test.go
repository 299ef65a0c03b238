package kbs

import "github.com/ccrun/ccrun/secret"

func secretBytes(s string) secret.Bytes { return secret.New([]byte(s)) }
