// Package oci is how Ebb speaks with registries of images: as whom, over which scheme, and how it says what went wrong.
//
// It knows nothing of what is in an image.
package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/google"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Options of a Client. The zero value is for use.
type Options struct {
	// Keychain has the credentials. By default they are those of docker's configuration (DOCKER_CONFIG names its folder), and
	// for Google's registries those of the surroundings: Workload Identity, a metadata server, a file of credentials.
	Keychain authn.Keychain
	// Transport is what requests go through. By default it is one of the Client's own.
	Transport http.RoundTripper
}

// Client speaks with registries. It may be used by many at the same time.
type Client struct {
	options []remote.Option
	own     *http.Transport // to be closed
}

// New returns a Client.
func New(o Options) *Client {
	c := new(Client)
	if o.Keychain == nil {
		o.Keychain = authn.NewMultiKeychain(authn.DefaultKeychain, surroundings{})
	}
	if o.Transport == nil {
		c.own = remote.DefaultTransport.(*http.Transport).Clone()
		o.Transport = c.own
	}
	c.options = []remote.Option{remote.WithAuthFromKeychain(o.Keychain), remote.WithTransport(o.Transport), remote.WithUserAgent("ebb")}
	return c
}

// Close frees what the Client holds.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Puller returns one for the requests of one piece of work, which share what they are allowed.
func (c *Client) Puller() (*remote.Puller, error) { return remote.NewPuller(c.options...) }

// Pusher returns one for the requests of one piece of work. It remembers what it has pushed, and must not outlive it.
func (c *Client) Pusher() (*remote.Pusher, error) { return remote.NewPusher(c.options...) }

// ErrName says that a name is not that of an image or a repository.
var ErrName = errors.New("not an image's name")

// maxName bounds the names of images.
const maxName = 512

// Reference reads the name of an image, with a tag or a digest.
func Reference(s string) (name.Reference, error) {
	if err := presentable(s); err != nil {
		return nil, err
	}
	ref, err := name.ParseReference(s, scheme(s)...)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: want registry/repository:tag or registry/repository@sha256:…, in lower case", ErrName, s)
	}
	return ref, nil
}

// Repository reads the name of a repository. It has to name its registry, so that nothing goes to a public one by mistake.
func Repository(s string) (name.Repository, error) {
	if err := presentable(s); err != nil {
		return name.Repository{}, err
	}
	repository, err := name.NewRepository(s, append(scheme(s), name.StrictValidation)...)
	if err != nil {
		return name.Repository{}, fmt.Errorf("%w: %q: want registry/repository, in lower case, without tag and digest; the registry's name has a dot or a port", ErrName, s)
	}
	return repository, nil
}

// presentable says whether a name may be shown in an error.
func presentable(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(s) > maxName:
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrName, len(s), maxName)
	}
	if user, _, ok := strings.Cut(s, "@"); ok && !strings.Contains(user, "/") {
		return fmt.Errorf("%w: it has a user or a password in it; leave out what is before the @, and put credentials into docker's configuration", ErrName)
	}
	return nil
}

// scheme allows plain HTTP for services of the cluster, which have no certificates. The library itself allows it for loopback
// and private addresses. HTTPS is tried first everywhere.
func scheme(s string) []name.Option {
	host, _, _ := strings.Cut(s, "/")
	host, _, _ = strings.Cut(host, ":")
	if strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".svc.cluster.local") {
		return []name.Option{name.Insecure}
	}
	return nil
}

// surroundings are Google's credentials of where the program runs. The library's own keychain for them asks once in a
// process's life, and a metadata server that was not ready then would be one without credentials for ever.
type surroundings struct{}

func (s surroundings) Resolve(of authn.Resource) (authn.Authenticator, error) {
	return s.ResolveContext(context.Background(), of)
}

func (surroundings) ResolveContext(ctx context.Context, of authn.Resource) (authn.Authenticator, error) {
	host := of.RegistryStr()
	if host != "gcr.io" && !strings.HasSuffix(host, ".gcr.io") && !strings.HasSuffix(host, ".pkg.dev") {
		return authn.Anonymous, nil
	}
	found, err := google.NewEnvAuthenticator(ctx)
	if err != nil {
		return authn.Anonymous, ctx.Err() // many images there are public
	}
	return found, nil
}
