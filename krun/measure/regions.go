package measure

import (
	"github.com/ccrun/ccrun/attest-server/kbs"
)

// regions lists what Digest measured, in its order.
func (l *Prepared) regions(p Profile, s Shape) []Region {
	switch p {
	case LibkrunTDX:
		return []Region{
			{Name: "memory", GPA: 0, SizeBytes: tdxRAMBytes, Type: "added"},
			whole("qboot", qbootGPA, "extended", l.in.QBoot, l.qbootSum),
		}
	case QEMUSNP:
		return l.qemuSNPRegions(s)
	case QEMUTDX, QEMUTDXInitrdLast, QEMUTDX2024, QEMUTDX2023:
		return l.qemuTDXRegions()
	case QEMUDirect:
		zp := qemuBootParams(&l.in, s)
		return appendVMSAs([]Region{
			whole("kernel", qemuKernelGPA, pageNormal.String(), l.in.Kernel, l.kernelSum),
			whole("initrd", qemuInitrdGPA, pageNormal.String(), l.in.Initrd, l.initrdSum),
			content("command line", cmdlineGPA, pageNormal.String(), wholePages(cmdlineBytes(l.in.Cmdline))),
			content("boot parameters", zeroPageGPA, pageNormal.String(), zp[:]),
		}, Libkrun116, s.CPUs)
	}
	zp := zeroPage(p, s, uint32(len(l.in.Initrd)))
	return appendVMSAs([]Region{
		whole("qboot", qbootGPA, pageNormal.String(), l.in.QBoot, l.qbootSum),
		whole("kernel", l.in.KernelLoad, pageNormal.String(), l.in.Kernel, l.kernelSum),
		whole("initrd", initrdGPA, pageNormal.String(), l.in.Initrd, l.initrdSum),
		content("boot parameters", zeroPageGPA, pageNormal.String(), zp[:]),
		{Name: "interrupt table", GPA: lidtGPA, SizeBytes: pageBytes, Type: pageZero.String()},
		{Name: "secrets", GPA: secretsGPA, SizeBytes: pageBytes, Type: pageSecrets.String()},
		{Name: "cpuid", GPA: cpuidGPA, SizeBytes: pageBytes, Type: pageCPUID.String()},
		{Name: "firmware data", GPA: fwDataGPA, SizeBytes: fwDataBytes, Type: pageZero.String()},
	}, p, s.CPUs)
}

func content(name string, gpa uint64, kind string, b []byte) Region {
	return whole(name, gpa, kind, b, func() kbs.Digest { return kbs.Sum384(b) })
}

// whole is content with a digest that several results share.
func whole(name string, gpa uint64, kind string, b []byte, sum func() kbs.Digest) Region {
	d := sum()
	return Region{Name: name, GPA: gpa, SizeBytes: uint64(len(b)+pageBytes-1) / pageBytes * pageBytes, Type: kind, SHA384: &d}
}

func appendVMSAs(r []Region, p Profile, cpus uint) []Region {
	for i := range cpus {
		v := vmsa(p, i == 0)
		r = append(r, content("vmsa", vmsaGPA, pageVMSA.String(), v[:]))
	}
	return r
}
