package picture

import "encoding/binary"

// pngEXIF returns the eXIf chunk, wherever it stands.
func pngEXIF(data []byte) []byte {
	for at := 8; len(data)-at >= 12; {
		size := int64(binary.BigEndian.Uint32(data[at:]))
		if size > int64(len(data)-at-12) {
			return nil
		}
		if string(data[at+4:at+8]) == "eXIf" {
			return data[at+8 : at+8+int(size)]
		}
		at += int(size) + 12
	}
	return nil
}
