// Package gcs is the source of versions in Google Cloud Storage: gs://bucket/prefix.
//
// Credentials are Google's application default ones (a Workload Identity in a cluster, GOOGLE_APPLICATION_CREDENTIALS, gcloud's); without
// any, a bucket must be public. Reading takes the role Storage Object Viewer. As with Google's own tools, STORAGE_EMULATOR_HOST
// names a server that is asked instead, without credentials.
//
// The store has a CRC32C of each object, so that what is fetched is always verified.
package gcs

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2/google"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"
	transport "google.golang.org/api/transport/http"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/bucket"
)

// Scheme is the URL's.
const Scheme = "gs"

// Options say where buckets are.
type Options struct {
	bucket.Options
	// Emulator is the address of a server that is asked instead of Google's, such as http://localhost:4443; default
	// what STORAGE_EMULATOR_HOST says.
	Emulator string
}

// Opener opens buckets.
func Opener(o Options) source.Opener {
	if o.Emulator == "" {
		o.Emulator = os.Getenv("STORAGE_EMULATOR_HOST")
	}
	if o.Emulator != "" && !strings.Contains(o.Emulator, "://") {
		o.Emulator = "http://" + o.Emulator
	}
	return func(_ context.Context, at *url.URL, limits source.Limits) (source.Source, error) {
		name, prefix, _, err := bucket.Parse(at)
		if err != nil {
			return nil, err
		}
		s := &store{bucket: name, emulator: strings.TrimSuffix(o.Emulator, "/"), base: source.Transport(o.Patience)}
		return bucket.New(s, prefix, limits, o.Options), nil
	}
}

type store struct {
	bucket   string
	emulator string
	base     *http.Transport
	service  *storage.Service // made when it is first needed
}

// Close ends the connections.
func (s *store) Close() error {
	s.base.CloseIdleConnections()
	return nil
}

// objects returns the API, with credentials if there are any.
func (s *store) objects(ctx context.Context) (*storage.ObjectsService, error) {
	if s.service != nil {
		return s.service.Objects, nil
	}
	// The credentials outlive the call.
	ctx = context.WithoutCancel(ctx)
	var how []option.ClientOption
	if s.emulator != "" {
		how = append(how, option.WithoutAuthentication())
	} else if found, err := google.FindDefaultCredentials(ctx, storage.DevstorageReadOnlyScope); err == nil {
		how = append(how, option.WithTokenSource(found.TokenSource))
	} else {
		// Then only what is public can be read; what is not, the store refuses, naming the anonymous caller.
		how = append(how, option.WithoutAuthentication())
	}
	authorized, err := transport.NewTransport(ctx, s.base, how...)
	if err != nil {
		return nil, fmt.Errorf("credentials for Google Cloud Storage: %w", err)
	}
	how = []option.ClientOption{option.WithHTTPClient(&http.Client{Transport: authorized})}
	if s.emulator != "" {
		how = append(how, option.WithEndpoint(s.emulator+"/storage/v1/"))
	}
	service, err := storage.NewService(ctx, how...)
	if err != nil {
		return nil, fmt.Errorf("client of Google Cloud Storage: %w", err)
	}
	s.service = service
	return service.Objects, nil
}

// fields are what is needed of the many that objects have.
const fields = "nextPageToken,prefixes,items(name,size,generation,updated,crc32c,contentEncoding)"

// List lists objects.
func (s *store) List(ctx context.Context, prefix string, deep bool, each func(bucket.Object) error) error {
	objects, err := s.objects(ctx)
	if err != nil {
		return err
	}
	call := objects.List(s.bucket).Prefix(prefix).Fields(fields)
	if !deep {
		call.Delimiter("/")
	}
	return call.Pages(ctx, func(page *storage.Objects) error {
		for _, folder := range page.Prefixes {
			if err := each(bucket.Object{Key: folder}); err != nil {
				return err
			}
		}
		for _, o := range page.Items {
			one := bucket.Object{Key: o.Name}
			if deep {
				var err error
				if one, err = describe(o); err != nil {
					return fmt.Errorf("object %q: %w", o.Name, err)
				}
			}
			if err := each(one); err != nil {
				return err
			}
		}
		return nil
	})
}

func describe(o *storage.Object) (bucket.Object, error) {
	if o.ContentEncoding != "" {
		// The store undoes it on the way, and its checksum is of what was before.
		return bucket.Object{}, fmt.Errorf("%w: it is stored with Content-Encoding %q; upload it without", source.ErrCorrupt, o.ContentEncoding)
	}
	modified, err := time.Parse(time.RFC3339, o.Updated)
	if err != nil {
		return bucket.Object{}, errors.New("the store does not say when it was updated")
	}
	sum, err := base64.StdEncoding.DecodeString(o.Crc32c)
	if err != nil || len(sum) != 4 {
		return bucket.Object{}, errors.New("the store does not say its CRC32C")
	}
	return bucket.Object{
		Key: o.Name, Size: int64(o.Size), State: strconv.FormatInt(o.Generation, 10), Modified: modified, Sum: source.CRC32C(sum),
	}, nil
}

// Describe has nothing to add.
func (s *store) Describe(_ context.Context, o bucket.Object) (bucket.Object, error) { return o, nil }

// Read reads an object.
func (s *store) Read(ctx context.Context, o bucket.Object, from int64) (io.ReadCloser, error) {
	objects, err := s.objects(ctx)
	if err != nil {
		return nil, err
	}
	generation, err := strconv.ParseInt(o.State, 10, 64)
	if err != nil {
		return nil, err
	}
	call := objects.Get(s.bucket, o.Key).Generation(generation).Context(ctx)
	if from > 0 {
		call.Header().Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	answer, err := call.Download()
	var refused *googleapi.Error
	switch {
	case errors.As(err, &refused) && refused.Code == http.StatusNotFound:
		return nil, fmt.Errorf("%w: it has been overwritten or deleted", source.ErrIncomplete)
	case err != nil:
		return nil, err
	case from > 0 && answer.StatusCode != http.StatusPartialContent:
		_ = answer.Body.Close()
		return nil, source.ErrBroken
	}
	return answer.Body, nil
}
