// Package s3 is the source of versions in Amazon S3 and in the stores that speak its protocol (MinIO, Ceph, R2 and others):
// s3://bucket/prefix?region=eu-central-1, or s3://bucket/prefix?endpoint=https://minio.example.
//
// Credentials are found as AWS's tools do: the variables AWS_ACCESS_KEY_ID and so on, the file ~/.aws/credentials, the role of a service account, a task or
// a machine; without any, a bucket must be public. Reading takes s3:ListBucket and s3:GetObject, and without a region
// s3:GetBucketLocation.
//
// What is fetched is verified by the checksum that was stored with the object, and without one by the ETag, where that is an MD5: it
// is none for objects that were uploaded in parts, and for those that are encrypted with a key of one's own.
package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // what ETags are; it is for accidents
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/bucket"
)

// Scheme is the URL's.
const Scheme = "s3"

const (
	amazon = "https://s3.amazonaws.com"
	// roleTimeout bounds the question for a machine's role, which nobody answers where there is none.
	roleTimeout = 5 * time.Second
)

// Options say how buckets are read.
type Options struct {
	bucket.Options
	Credentials *credentials.Credentials // default: as AWS's tools find them
}

// Opener opens buckets.
func Opener(o Options) source.Opener {
	return func(_ context.Context, at *url.URL, limits source.Limits) (source.Source, error) {
		name, prefix, query, err := bucket.Parse(at, "region", "endpoint")
		if err != nil {
			return nil, err
		}
		endpoint, lookup := amazon, minio.BucketLookupAuto
		if query["endpoint"] != "" {
			endpoint, lookup = query["endpoint"], minio.BucketLookupPath
		}
		server, err := url.Parse(endpoint)
		if err != nil || server.Scheme != "http" && server.Scheme != "https" || server.Host == "" || server.User != nil ||
			strings.Trim(server.Path, "/") != "" || server.RawQuery != "" || server.Fragment != "" {
			return nil, fmt.Errorf("%w: its endpoint must be https://host or http://host, with a port if need be", source.ErrURL)
		}
		base := source.Transport(o.Patience)
		client, err := minio.NewCore(server.Host, &minio.Options{
			Creds:        o.credentials(),
			Secure:       server.Scheme == "https",
			Region:       query["region"],
			BucketLookup: lookup,
			Transport:    base,
			MaxRetries:   1, // who asks us asks again
		})
		if err != nil {
			return nil, fmt.Errorf("%w: there can be no such bucket or endpoint", source.ErrURL)
		}
		return bucket.New(&store{client, name, base}, prefix, limits, o.Options), nil
	}
}

func (o Options) credentials() *credentials.Credentials {
	if o.Credentials != nil {
		return o.Credentials
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{Client: &http.Client{Timeout: roleTimeout}},
	})
}

type store struct {
	client *minio.Core
	bucket string
	base   *http.Transport
}

// Close ends the connections.
func (s *store) Close() error {
	s.base.CloseIdleConnections()
	return nil
}

// List lists objects.
func (s *store) List(ctx context.Context, prefix string, deep bool, each func(bucket.Object) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: deep}) {
		if o.Err != nil {
			return o.Err
		}
		if err := each(bucket.Object{Key: o.Key, Size: o.Size, State: o.ETag, Modified: o.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Describe asks for an object's checksum.
func (s *store) Describe(ctx context.Context, o bucket.Object) (bucket.Object, error) {
	info, err := s.client.StatObject(ctx, s.bucket, o.Key, minio.StatObjectOptions{Checksum: true})
	if err != nil {
		return o, reason(err)
	}
	if info.ETag != o.State {
		return o, fmt.Errorf("%w: it has been overwritten", source.ErrIncomplete)
	}
	o.Sum = sum(info)
	return o, nil
}

// sum returns the best checksum that there is of the whole object.
func sum(info minio.ObjectInfo) source.Sum {
	for _, c := range []struct {
		text string // a checksum of checksums of parts has a dash in it
		size int
		make func([]byte) source.Sum
	}{
		{info.ChecksumSHA256, 32, source.SHA256},
		{info.ChecksumCRC64NVME, 8, crc64NVME},
		{info.ChecksumCRC32C, 4, source.CRC32C},
	} {
		if want, err := base64.StdEncoding.DecodeString(c.text); err == nil && len(want) == c.size {
			return c.make(want)
		}
	}
	encryption := info.Metadata.Get("X-Amz-Server-Side-Encryption")
	ownKey := info.Metadata.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm")
	want, err := hex.DecodeString(info.ETag)
	if err == nil && len(want) == md5.Size && (encryption == "" || encryption == "AES256") && ownKey == "" {
		return source.MD5(want)
	}
	return source.Sum{}
}

// nvme is the polynomial of CRC-64/NVME, reversed.
const nvme = 0x9a6c9329ac4bc9b5

func crc64NVME(want []byte) source.Sum {
	return source.Sum{Name: "CRC64NVME", New: func() hash.Hash { return crc64.New(crc64.MakeTable(nvme)) }, Want: want}
}

// Read reads an object.
func (s *store) Read(ctx context.Context, o bucket.Object, from int64) (io.ReadCloser, error) {
	var how minio.GetObjectOptions
	if err := how.SetMatchETag(o.State); err != nil {
		return nil, err
	}
	if from > 0 {
		if err := how.SetRange(from, 0); err != nil {
			return nil, err
		}
	}
	body, info, header, err := s.client.GetObject(ctx, s.bucket, o.Key, how)
	if err != nil {
		return nil, reason(err)
	}
	// Not every store knows conditions and ranges.
	if info.ETag != o.State || from > 0 && header.Get("Content-Range") == "" {
		_ = body.Close()
		return nil, fmt.Errorf("%w: the store sends something else than was asked for", source.ErrBroken)
	}
	return body, nil
}

// reason tells an object that has changed from what may pass.
func reason(err error) error {
	switch minio.ToErrorResponse(err).StatusCode {
	case http.StatusNotFound, http.StatusPreconditionFailed:
		return fmt.Errorf("%w: it has been overwritten or deleted", source.ErrIncomplete)
	}
	return err
}
