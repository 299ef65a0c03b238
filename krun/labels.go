package krun

// Labels of a workload image, repeated as annotations of an OCI manifest, and
// so of the container that Podman makes of it. They are for people, tools and
// early errors; nothing trusts them.
const (
	LabelVersion        = "io.ccrun.version" // of the image's layout; marks an image made by ccrun
	LabelTEE            = "io.ccrun.tee"
	LabelWorkloadID     = "io.ccrun.workload-id"
	LabelIdentityDigest = "io.ccrun.identity-digest"
	LabelLaunchDigests  = "io.ccrun.launch-digest" // PROFILE=HEX, comma separated
	LabelFirmware       = "io.ccrun.firmware"      // SHA-256 of the firmware inputs (firmware.Bundle.Digest), 64 hex digits
	LabelPorts          = "io.ccrun.ports"         // on which the workload listens: "80/tcp,53/udp"
	LabelSource         = "io.ccrun.source"        // manifest digest of the source image; only with PublishSource
	// VolumesAnnotation names the volume file of a container, in place of the one
	// that its workload has by default: the name of one in the volume directory, or
	// an absolute path. It is given at launch, and no label.
	VolumesAnnotation = "io.ccrun.volumes"
	// LabelLayout marks an image for libkrun's own init. It has no
	// LabelVersion, because nothing that handles ours can handle it.
	LabelLayout = "io.ccrun.layout"
)

// Ports that libkrun makes for a container's streams, each for one that is no
// terminal. Without a terminal the console is libkrun's log: lines get a prefix
// and are cut.
const (
	StdoutPort = "krun-stdout"
	StderrPort = "krun-stderr"
)
