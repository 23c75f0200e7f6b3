//go:build !linux

package child

import "syscall"

// dieWithParent is something that only Linux can be asked for. Elsewhere a program that is killed leaves its children behind.
func dieWithParent() *syscall.SysProcAttr { return nil }
