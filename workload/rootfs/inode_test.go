package rootfs

import (
	"fmt"
	"io/fs"
	"syscall"
)

func inodeKey(info fs.FileInfo) string { return fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino) }
