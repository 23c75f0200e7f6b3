package s3

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/stretchr/testify/require"
)

func TestTheChecksumThatAnObjectIsHeldTo(t *testing.T) {
	t.Parallel()
	const (
		sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
		crc64  = "ae8b14860a799888"
		crc32c = "e3069283"
		md5    = "25f9e794323b453885f5181f1b624d0b"
	)
	b64 := func(digits string) string {
		raw, err := hex.DecodeString(digits)
		require.NoError(t, err)
		return base64.StdEncoding.EncodeToString(raw)
	}
	encrypted := func(how string) http.Header { return http.Header{"X-Amz-Server-Side-Encryption": {how}} }
	for _, c := range []struct {
		name string
		info minio.ObjectInfo
		want string // algorithm; empty for none
	}{
		{"the strongest of several", minio.ObjectInfo{ChecksumSHA256: b64(sha256), ChecksumCRC32C: b64(crc32c), ETag: md5}, "SHA-256"},
		{"as AWS's tools upload", minio.ObjectInfo{ChecksumCRC64NVME: b64(crc64), ETag: md5 + "-2"}, "CRC64NVME"},
		{"CRC32C", minio.ObjectInfo{ChecksumCRC32C: b64(crc32c), ETag: md5}, "CRC32C"},
		{"a checksum of those of parts is none of the object", minio.ObjectInfo{ChecksumSHA256: b64(sha256) + "-2", ETag: md5 + "-2"}, ""},
		{"the ETag of an upload in one", minio.ObjectInfo{ETag: md5}, "MD5"},
		{"the ETag of one encrypted with the store's key", minio.ObjectInfo{ETag: md5, Metadata: encrypted("AES256")}, "MD5"},
		{"the ETag of one encrypted with another key is no MD5", minio.ObjectInfo{ETag: md5, Metadata: encrypted("aws:kms")}, ""},
		{"the ETag of an upload in parts is no MD5", minio.ObjectInfo{ETag: md5 + "-7"}, ""},
		{"an ETag that is something else", minio.ObjectInfo{ETag: "W1"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := sum(c.info)
			require.Equal(t, c.want, got.Name)
			if c.want == "" {
				require.Nil(t, got.New)
				return
			}
			h := got.New()
			_, _ = h.Write([]byte("123456789")) // a hash never fails
			require.Equal(t, got.Want, h.Sum(nil), "of what all CRCs are checked by")
		})
	}
}
