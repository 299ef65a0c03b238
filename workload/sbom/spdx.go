package sbom

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

const spdxVersion = "SPDX-2.3"

// spdxDocument is what we write of SPDX 2.3 (ISO/IEC 5962 and successor), in
// its JSON form.
type spdxDocument struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      spdxCreation   `json:"creationInfo"`
	Packages          []spdxPackage  `json:"packages"`
	Relationships     []spdxRelation `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	SPDXID           string         `json:"SPDXID"`
	Name             string         `json:"name"`
	VersionInfo      string         `json:"versionInfo,omitempty"`
	DownloadLocation string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	LicenseConcluded string         `json:"licenseConcluded"`
	LicenseDeclared  string         `json:"licenseDeclared"`
	CopyrightText    string         `json:"copyrightText"`
	Checksums        []spdxChecksum `json:"checksums,omitempty"`
	ExternalRefs     []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelation struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// Count reads a document as spdx writes it.
func Count(b []byte) (int, error) {
	var s spdxDocument
	if err := json.Unmarshal(b, &s); err != nil {
		return 0, err
	}
	if s.SPDXVersion != spdxVersion {
		return 0, fmt.Errorf("SBOM of version %.20q, expected %s", s.SPDXVersion, spdxVersion)
	}
	return max(0, len(s.Packages)-1), nil
}

// spdx writes the document. The order is that of the package URLs, whatever
// the order in which they were found. The document's name space is of its own
// content, which all may read, and not of the source.
func spdx(list []softwarePackage, distro string, source digest.Digest, now time.Time) ([]byte, error) {
	slices.SortFunc(list, func(a, b softwarePackage) int { return strings.Compare(a.purl(distro), b.purl(distro)) })
	list = slices.Compact(list)
	const none, root = "NOASSERTION", "SPDXRef-image"
	d := spdxDocument{
		SPDXVersion: spdxVersion, DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: "source image",
		CreationInfo:  spdxCreation{now.UTC().Format(time.RFC3339), []string{"Tool: ccrun"}},
		Packages:      []spdxPackage{{SPDXID: root, Name: "source image", DownloadLocation: none, LicenseConcluded: none, LicenseDeclared: none, CopyrightText: none}},
		Relationships: []spdxRelation{{"SPDXRef-DOCUMENT", "DESCRIBES", root}},
	}
	if source != "" {
		d.Name, d.Packages[0].Checksums = "image "+source.String(), []spdxChecksum{{"SHA256", source.Encoded()}}
	}
	for i, p := range list {
		id := fmt.Sprintf("SPDXRef-package-%d", i+1)
		d.Packages = append(d.Packages, spdxPackage{
			SPDXID: id, Name: p.name, VersionInfo: p.version, DownloadLocation: none, LicenseConcluded: none, LicenseDeclared: none, CopyrightText: none,
			ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", p.purl(distro)}},
		})
		d.Relationships = append(d.Relationships, spdxRelation{root, "CONTAINS", id})
	}
	content, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	d.DocumentNamespace = "https://github.com/ccrun/ccrun/spdx/" + digest.FromBytes(content).Encoded()
	return json.Marshal(d)
}
