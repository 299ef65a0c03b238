module peer

go 1.26.0

require github.com/containers/luksy v0.0.0-20250609192159-bc60f96d4194

require (
	github.com/aead/serpent v0.0.0-20160714141033-fba169763ea6 // indirect
	github.com/google/uuid v1.6.0 // indirect
	golang.org/x/crypto v0.39.0 // indirect
	golang.org/x/sys v0.33.0 // indirect
)
