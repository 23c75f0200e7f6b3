package picture_test

import (
	"errors"
	"hash/crc32"
	"slices"
)

func crcOf(data []byte) uint32 { return crc32.ChecksumIEEE(data) }

func errorIsAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}
