package crun

func readOnly(m *Machine) []string {
	return one(m.Root.Readonly, "the disk is not read-only: --read-only has no effect")
}

func hostname(m *Machine) []string {
	return one(m.Hostname != "", "the host name does not reach the workload, whose name is its id")
}

func sysctls(m *Machine) []string {
	return one(len(m.linux().Sysctl) > 0, "sysctls do not reach the workload's kernel")
}

func devices(m *Machine) []string {
	return one(len(m.linux().Devices) > 0, "devices of the host are not visible inside the VM")
}

func processors(m *Machine) []string {
	return one(m.resources().CPU != nil, "limits of processor time hold for the VM as a whole; the number of its processors is measured")
}

// memory is given where it is too little: the guest's is measured, so a limit
// cannot shrink it, only kill it.
func memory(m *Machine) []string {
	limit := m.resources().Memory
	if limit == nil || limit.Limit == nil || *limit.Limit <= 0 || *limit.Limit >= m.MemoryBytes {
		return nil
	}
	return one(true, "memory limit raised from %d to %d MiB: the VM's memory is measured and cannot be less", *limit.Limit>>20, m.MemoryBytes>>20)
}

func raiseMemory(m *Machine) error {
	limit := *m.resources().Memory
	limit.Limit, limit.Reservation = &m.MemoryBytes, nil
	if limit.Swap != nil && *limit.Swap > 0 && *limit.Swap < m.MemoryBytes {
		limit.Swap = &m.MemoryBytes
	}
	return m.Set(limit, "linux", "resources", "memory")
}

// threads are given where they are too few.
func threads(m *Machine) []string {
	n := m.resources().Pids
	return one(n != nil && n.Limit > 0 && n.Limit < m.Threads, "the number of processes raised to %d, which the VM's monitor takes", m.Threads)
}

func raiseThreads(m *Machine) error {
	return m.Set(m.Threads, "linux", "resources", "pids", "limit")
}

// variant of libkrun other than the one for SEV.
func otherVariant(m *Machine) []string {
	have := m.Annotations[VariantAnnotation]
	return one(have != "" && have != "sev", "annotation %s is %q, expected sev for this image", VariantAnnotation, have)
}
