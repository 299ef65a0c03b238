package workload

func killedChild() {}
