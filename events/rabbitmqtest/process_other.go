//go:build !linux

package rabbitmqtest

import "syscall"

// dieWithParent is something that only Linux can be asked for. Elsewhere a test that is killed leaves its node behind.
func dieWithParent() *syscall.SysProcAttr { return nil }
